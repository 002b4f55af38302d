"""Gold explanations written by a language model, through one interface and a cache on disk.

A labeler is a function from a prompt to a text. Answers are kept one file each, named by a hash
of the model and the prompt, so a run that was stopped asks for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from nla_audit.errors import UserError
from nla_audit.train.dataset import Dataset
from nla_audit.train.recipe import Labeler
from nla_audit.train.writing import whole_file

#: A prompt to an answer.
Write = Callable[[str], str]
Tell = Callable[[str, int, int], None]

_TIMEOUT_SECONDS = 120
_ATTEMPTS = 3


def write_missing_gold(dataset: Dataset, settings: Labeler, cache: Path, tell: Tell) -> Dataset:
    """The dataset with a gold explanation in every row.

    Raises:
        UserError: a row lacks its source text too, or the model cannot be reached.
    """
    missing = [row for row, text in enumerate(dataset.explanations) if not (text or "").strip()]
    without_source = [row for row in missing if not dataset.source_texts[row]]
    if without_source:
        raise UserError(
            f"{len(without_source)} rows have neither gold explanation nor source text (the first "
            f"is idx {dataset.idx[without_source[0]]}); a labeler needs the text"
        )
    if not missing:
        return dataset
    ask = cached(labeler_of(settings), settings, cache)
    prompts = [settings.prompt.replace("{text}", str(dataset.source_texts[row])) for row in missing]
    explanations = list(dataset.explanations)
    workers = settings.workers if settings.kind == "openai" else 1
    with ThreadPoolExecutor(workers) as pool:
        for done, (row, answer) in enumerate(zip(missing, pool.map(ask, prompts), strict=True), 1):
            explanations[row] = answer
            tell("gold explanations", done, len(missing))
    return replace(dataset, explanations=explanations)


def labeler_of(settings: Labeler) -> Write:
    """The language model that a recipe names."""
    return _endpoint(settings) if settings.kind == "openai" else _local(settings)


def cached(write: Write, settings: Labeler, folder: Path) -> Write:
    """``write``, remembering its answers in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    def ask(prompt: str) -> str:
        question = json.dumps([settings.kind, settings.model, settings.max_new_tokens, prompt])
        path = folder / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        answer = write(prompt).strip()
        if not answer:
            raise UserError(f"{settings.model}: gave an empty explanation; try another prompt")
        with whole_file(path) as partial:
            partial.write_text(answer, encoding="utf-8")
        return answer

    return ask


def _endpoint(settings: Labeler) -> Write:
    """Chat completions of an OpenAI-compatible server."""
    url = f"{settings.base_url.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"

    def write(prompt: str) -> str:
        body = {
            "model": settings.model,
            "max_tokens": settings.max_new_tokens,
            "messages": [{"role": "user", "content": prompt}],
        }
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
                    answer: Any = json.load(response)
                return str(answer["choices"][0]["message"]["content"] or "")
            except (OSError, ValueError, KeyError, IndexError) as error:
                reason = str(error)
        raise UserError(f"{url}: no answer after {_ATTEMPTS} attempts ({reason}); is it running?")

    return write


def _local(settings: Labeler) -> Write:
    """A transformers model on this machine, greedy."""
    import torch  # noqa: PLC0415

    from nla_audit.nla.load import Placement  # noqa: PLC0415
    from nla_audit.nla.prompts import chat_ids  # noqa: PLC0415
    from nla_audit.train.pair import load_language_model, load_tokenizer  # noqa: PLC0415

    model = load_language_model(settings.model, Placement(), None)
    tokenizer = load_tokenizer(settings.model)

    @torch.inference_mode()
    def write(prompt: str) -> str:
        ids = torch.tensor([chat_ids(tokenizer, prompt)], device=model.device)
        output = model.generate(ids, max_new_tokens=settings.max_new_tokens, do_sample=False)
        return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)

    return write
