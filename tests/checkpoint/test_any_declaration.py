"""Configs, sidecars and adapters with any faults at all: something is read, or one short line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_audit.checkpoint.backbone import Placement, read_config
from nla_audit.checkpoint.declared_size import check_size
from nla_audit.checkpoint.formats import ADAPTER_CONFIG, recognise
from nla_audit.checkpoint.read_sidecar import read_sidecar
from nla_audit.errors import UserError
from tests.checkpoint.spoiling import rewrite

_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.just("9" * 50),
    st.sampled_from([10**5, 10**9, 2**31, 2**64, 1e30, -0.0, float("nan")]),
)


def _ends_in_one_line(read: Callable[[], object]) -> None:
    """``read`` gives something or an error of one short line, soon."""
    before = time.process_time()
    try:
        read()
        said = ""
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    assert time.process_time() - before < 5


def _spoilt(data: st.DataObject, fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with up to three values, at any depth, replaced, removed or added."""
    spoilt = copy.deepcopy(fields)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = spoilt
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            if data.draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = data.draw(_ODD)
            break
    return spoilt


_PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@_PROPERTY
@given(data=st.data())
def test_any_config_gives_a_model_or_one_line(data: st.DataObject, saved: Path) -> None:
    folder = saved / "spoilt"
    if not folder.is_dir():
        shutil.copytree(saved / "av", folder, copy_function=os.link)
    original = json.loads((saved / "av" / "config.json").read_text(encoding="utf-8"))
    rewrite(folder / "config.json", json.dumps(_spoilt(data, original)))
    _ends_in_one_line(lambda: check_size(folder, read_config(folder, Placement())))


@_PROPERTY
@given(data=st.data())
def test_any_sidecar_is_read_or_one_line(data: st.DataObject, saved: Path) -> None:
    path = saved / "spoilt.yaml"
    original = yaml.safe_load((saved / "av" / "nla_meta.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(_spoilt(data, original), allow_unicode=True), encoding="utf-8")
    _ends_in_one_line(lambda: read_sidecar(path))


@_PROPERTY
@given(data=st.data())
def test_any_adapter_config_is_read_or_one_line(data: st.DataObject, adapter_saved: Path) -> None:
    folder = adapter_saved.parent / "adapter-spoilt"
    if not folder.is_dir():
        shutil.copytree(adapter_saved, folder, copy_function=os.link)
    original = json.loads((adapter_saved / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    rewrite(folder / ADAPTER_CONFIG, json.dumps(_spoilt(data, original)))
    _ends_in_one_line(lambda: recognise(folder))
