"""Gold explanations where there are none: by rule, or by a language model, through one interface
and a cache on disk.

A labeler is a function from a prompt to a text. Answers are kept one file each, named by a hash
of the model and the prompt, so a run that was stopped asks for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nla_audit.errors import UserError
from nla_audit.files import whole_file, writing
from nla_audit.llm.client import Client, EndpointSettings, side_by_side
from nla_audit.llm.interface import Account
from nla_audit.train.dataset import Dataset
from nla_audit.train.recipe_data import Labeler
from nla_audit.train.rule_gold import rule_explanations
from nla_audit.wording import count, verb

#: A prompt to an answer.
Write = Callable[[str], str]
Tell = Callable[[str, int, int], None]

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
            f"{count(len(without_source), 'row')} "
            f"{verb(len(without_source), 'has', 'have')} neither gold explanation nor source "
            f"text (the first is idx {dataset.idx[without_source[0]]}); a labeler needs the text"
        )
    if not missing:
        return dataset
    if settings.kind == "rule":
        return _with_rule_gold(dataset, missing, settings)
    write = labeler_of(settings)
    ask = cached(write, settings, cache)
    prompts = [settings.prompt.replace("{text}", str(dataset.source_texts[row])) for row in missing]
    explanations = list(dataset.explanations)
    done = 0

    def each(place: int, answer: str) -> None:
        nonlocal done
        done += 1
        explanations[missing[place]] = answer
        tell("gold explanations", done, len(missing))

    side_by_side(
        lambda place: ask(prompts[place]),
        range(len(missing)),
        each,
        workers=settings.workers if settings.kind == "openai" else 1,
        stop=write.stop if isinstance(write, _Endpoint) else lambda: None,
    )
    return replace(dataset, explanations=explanations)


def _with_rule_gold(dataset: Dataset, missing: list[int], settings: Labeler) -> Dataset:
    explanations = list(dataset.explanations)
    written = rule_explanations(
        [str(dataset.source_texts[row]) for row in missing],
        [dataset.doc_ids[row] for row in missing],
        key_words=settings.key_words,
        last_words=settings.last_words,
        half_life=settings.half_life,
    )
    for row, text in zip(missing, written, strict=True):
        explanations[row] = text
    return replace(dataset, explanations=explanations)


def labeler_of(settings: Labeler) -> Write:
    """The language model that a recipe names."""
    return _Endpoint(settings) if settings.kind == "openai" else _local(settings)


def cached(write: Write, settings: Labeler, folder: Path) -> Write:
    """``write``, remembering its answers in ``folder``."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def ask(prompt: str) -> str:
        asked = [settings.kind, settings.model, settings.max_new_tokens, prompt]
        if settings.temperature is not None:
            asked.append(settings.temperature)
        question = json.dumps(asked)
        path = folder / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.txt"
        kept = _kept(path)
        if kept:
            return kept
        answer = write(prompt).strip()
        if not answer:
            raise UserError(f"{settings.model}: gave an empty explanation; try another prompt")
        with whole_file(path) as partial:
            partial.write_text(answer, encoding="utf-8")
        return answer

    return ask


def _kept(path: Path) -> str:
    """A former answer; nothing where there is none, or it is damaged and to be asked for again."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class _Endpoint:
    """Chat completions of an OpenAI-compatible server."""

    def __init__(self, settings: Labeler) -> None:
        how = EndpointSettings(
            concurrency=settings.workers,
            attempts=_ATTEMPTS,
            temperature=settings.temperature,
            max_tokens=settings.max_new_tokens,
            token_limit_name=settings.token_limit_name,
        )
        options = ("data.labeler.token_limit_name", "data.labeler.temperature")
        self._client = Client(settings.model, settings.base_url, how, Account(), options)

    def __call__(self, prompt: str) -> str:
        message = {"role": "user", "content": prompt}
        # A cut explanation is one: max_new_tokens is there to cut.
        text, reason = self._client.ask([message], lambda text: text, takes_cut=True)
        if text is None:
            raise UserError(
                f"{self._client.url}: no answer after {_ATTEMPTS} attempts ({reason}); is it "
                "running?"
            )
        return text

    def stop(self) -> None:
        self._client.stop()


def _local(settings: Labeler) -> Write:
    """A transformers model on this machine, greedy."""
    import torch

    from nla_audit.checkpoint.load import load_language_model
    from nla_audit.nla.prompts import chat_ids

    model, tokenizer = load_language_model(settings.model)

    @torch.inference_mode()
    def write(prompt: str) -> str:
        ids = torch.tensor([chat_ids(tokenizer, prompt)], device=model.device)
        output = model.generate(ids, max_new_tokens=settings.max_new_tokens, do_sample=False)
        return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)

    return write
