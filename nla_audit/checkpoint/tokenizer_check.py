"""Whether a tokenizer that was saved is, for whoever loads it, still the same tokenizer.

transformers 5 chooses the class of a tokenizer by the model type in ``config.json``, and some
classes put their own normalisation and splitting in the place of what ``tokenizer.json`` says:
a word-level tokenizer saved beside a Qwen2 model comes back as byte-level BPE. Nothing fails; the
pair merely reads other tokens than those it was trained on. So what was written is loaded once
more and compared, on the pair's own prompts and on a few texts that splitting differs on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nla_audit.checkpoint.backbone import Placement, read_tokenizer
from nla_audit.errors import UserError, first_line
from nla_audit.nla.prompts import ar_prompt_ids, chat_ids, token_ids
from nla_audit.nla.sidecar import Sidecar

#: What tokenizers split differently: case, runs of spaces, digits, apostrophes, quotes, lines,
#: accents composed and decomposed, scripts without spaces, and the tags.
_TEXTS = (
    "The final token “ the ” opens a noun phrase; it isn't 2,024 or 3.14.",
    "<explanation>\n- first  feature\n- second\tfeature</explanation>",
    "naïve café, cafe\u0301; Ærø — 東京の天気 🙂",
    " leading and trailing ",
)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write ``tokenizer`` to ``folder``.

    Raises:
        OSError: it cannot be written; the tokenizers library raises a bare ``Exception`` then.
    """
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(first_line(error)) from None


def check_reloads(tokenizer: Any, folder: Path, sidecar: Sidecar) -> None:
    """Check that the tokenizer saved in ``folder`` (beside ``config.json``) is ``tokenizer``.

    Raises:
        UserError: it encodes a prompt of ``sidecar`` or another text differently.
    """
    again = read_tokenizer(folder, Placement())
    encoded_again = _encoded(again, sidecar)
    for what, ids in _encoded(tokenizer, sidecar).items():
        found = encoded_again[what]
        if found != ids:
            place = next(
                (n for n, (a, b) in enumerate(zip(ids, found, strict=False)) if a != b),
                min(len(ids), len(found)),
            )
            raise UserError(
                f"{folder}: transformers loads the tokenizer saved here as a "
                f"{type(again).__name__} that encodes {what} differently (token {place} is "
                f"{_at(found, place)}, was {_at(ids, place)}), so the pair would read other tokens "
                "than in training; use a tokenizer of the kind this model type has"
            )


def check_survives_saving(tokenizer: Any, config: Any, sidecar: Sidecar) -> None:
    """As :func:`check_reloads`, before there is a folder: training for nothing is dear.

    Args:
        config: of the model that it will be saved beside.

    Raises:
        UserError: as :func:`check_reloads`, or there is no room for temporary files.
    """
    with tempfile.TemporaryDirectory() as name:
        try:
            config.save_pretrained(name)
            save_tokenizer(tokenizer, Path(name))
        except OSError as error:
            raise UserError(
                f"{name}: cannot write ({error.strerror or error}); free some space, or name "
                "another folder for temporary files with TMPDIR"
            ) from None
        check_reloads(tokenizer, Path(name), sidecar)


def _encoded(tokenizer: Any, sidecar: Sidecar) -> dict[str, list[int]]:
    """Token ids of everything that is compared, by what a message calls it."""
    found = {}
    if sidecar.av_template is not None:
        prompt = sidecar.av_template.format(injection_char=sidecar.tokens.injection_char)
        found["the AV prompt"] = chat_ids(tokenizer, prompt)
    for text in _TEXTS:
        found[repr(text)] = token_ids(tokenizer, text, special_tokens=False)
        if sidecar.ar_template is not None:
            (ids,) = ar_prompt_ids(tokenizer, sidecar.ar_template, [text])
            found[f"the AR prompt with {text!r}"] = ids
    return found


def _at(ids: list[int], place: int) -> int | str:
    return ids[place] if place < len(ids) else "missing"
