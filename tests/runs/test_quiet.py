"""An ordinary run shows no warning of a library; whoever asks for them gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nla.test_families import config_of, model_of
from tests.pairs import tiny

ASKED = {"TRANSFORMERS_VERBOSITY": "warning", "PYTHONWARNINGS": "default::FutureWarning"}


@pytest.mark.slow
def test_extract_of_linear_attention(tmp_path: Path) -> None:
    tokenizer = tiny.make_tokenizer(bos=False)
    model_of(config_of("qwen3_next", len(tokenizer)), 0).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("a story about a fair, with a quoted word")
    command = [sys.executable, "-m", "nla_audit.cli", "extract", "model", "texts.txt"]
    command += ["--layer", "1", "--minimum-position", "2", "--out"]
    plain = {name: value for name, value in os.environ.items() if name not in ASKED}
    said = {}
    for out, environment in (("quiet.parquet", plain), ("asked.parquet", plain | ASKED)):
        done = subprocess.run(
            [*command, out],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        said[out] = done.stderr
    assert "is falling back to its reference PyTorch implementation" in said["asked.parquet"]
    (line,) = said["quiet.parquet"].strip().splitlines()
    assert line.startswith("quiet.parquet: 5 activations")


def test_deprecations_are_hidden_here_and_in_processes_we_start() -> None:
    code = (
        "import subprocess, sys, warnings\n"
        "from nla_audit.quiet import quiet_libraries\n"
        "quiet_libraries()\n"
        "warnings.warn('soon', FutureWarning)\n"
        "child = 'import warnings; warnings.warn(\"later\", FutureWarning)'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ASKED}
    plain["PYTHONPATH"] = str(Path(__file__).parents[2])
    for environment, words in ((plain, []), (plain | ASKED, ["soon", "later"])):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert [word for word in ("soon", "later") if word in done.stderr] == words
