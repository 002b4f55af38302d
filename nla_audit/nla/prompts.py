"""The two fixed prompts, as token ids, and how explanations are read out of answers.

The AV prompt comes from the chat template, which already holds a BOS where the model has one:
adding another shifts the marker. The AR prompt is a raw string and is tokenised *with* special
tokens: dropping its BOS took a Gemma pair's FVE from 0.77 to 0.31 (docs/failures.md).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nla_audit.errors import UserError
from nla_audit.nla.chat_template import rendered_chats
from nla_audit.nla.refusal import Refuse, refuse_wrong
from nla_audit.nla.sidecar import Sidecar

_OPENING, _CLOSING = "<explanation>", "</explanation>"
#: Reasoning models write a thought first; templates of some open it by themselves.
_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_EXPLANATION = re.compile(f"{_OPENING}(.*?){_CLOSING}", re.DOTALL)

#: Words in the Unicode names of Chinese, Japanese and Korean characters. The release's marker is
#: one of them: U+320E, a parenthesised Hangul syllable.
_CJK_SCRIPTS = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA")


@dataclass(frozen=True)
class AvPrompt:
    """Token ids of the AV prompt, generation prompt included, and where the marker is."""

    ids: tuple[int, ...]
    marker: int


def av_prompt(tokenizer: Any, sidecar: Sidecar, *, refuse: Refuse = refuse_wrong) -> AvPrompt:
    """Build the AV prompt and check that the vector would land where the AV was trained to see it.

    Args:
        refuse: told that the marker is not the pinned token, that its neighbours are not the
            pinned ones, or that BOS occurs twice; raises, unless a user knows better.

    Raises:
        UserError: no AV template; the marker is not one token or does not occur exactly once.
    """
    where, tokens = sidecar.path, sidecar.tokens
    if sidecar.av_template is None:
        raise UserError(f"{where}: no AV prompt template (prompt_templates.av or .actor)")
    marker_ids = token_ids(tokenizer, tokens.injection_char, special_tokens=False)
    drift = (
        f"{where}: the tokenizer encodes the marker {tokens.injection_char!r} as {marker_ids}, "
        f"the sidecar says [{tokens.injection_token_id}]; use the tokenizer of this checkpoint"
    )
    if len(marker_ids) != 1:
        raise UserError(drift)
    if marker_ids != [tokens.injection_token_id]:
        refuse(drift)
    ids = chat_ids(tokenizer, sidecar.av_template.format(injection_char=tokens.injection_char))
    places = [place for place, token in enumerate(ids) if token == marker_ids[0]]
    if len(places) != 1 or places[0] in (0, len(ids) - 1):
        raise UserError(
            f"{where}: the marker must occur once inside the AV prompt, "
            f"found it at positions {places} of {len(ids)}"
        )
    (marker,) = places
    found = (ids[marker - 1], ids[marker + 1])
    pinned = (tokens.left_neighbor_id, tokens.right_neighbor_id)
    if found != pinned:
        refuse(
            f"{where}: the marker's neighbours are tokens {found}, the sidecar says {pinned}; "
            "tokenizer or chat template is not this checkpoint's"
        )
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        refuse(f"{where}: the AV prompt begins with BOS twice; mend the chat template")
    return AvPrompt(tuple(ids), marker)


def chat_ids(tokenizer: Any, content: str) -> list[int]:
    """One user message through the chat template, generation prompt included, as token ids.

    Rendered to text first: what ``apply_chat_template(tokenize=True)`` returns differs between
    versions of transformers.

    Raises:
        UserError: the tokenizer has no chat template, or one that fails or does not end.
    """
    (text,) = rendered_chats(tokenizer, [[{"role": "user", "content": content}]])
    return token_ids(tokenizer, text, special_tokens=False)


def token_ids(tokenizer: Any, text: str, *, special_tokens: bool) -> list[int]:
    """Token ids of one text."""
    return list(tokenizer(text, add_special_tokens=special_tokens)["input_ids"])


def ar_prompt_ids(tokenizer: Any, template: str, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the AR prompt for each text, special tokens added.

    Texts are read exactly as given. Explanations are stripped where they are taken out of a
    response (:func:`read_explanation`), not here: white space in an edited text is part of it.
    """
    prompts = [template.format(explanation=text) for text in texts]
    if not prompts:
        return []
    return [list(ids) for ids in tokenizer(prompts, add_special_tokens=True)["input_ids"]]


def check_ar_prompt(tokenizer: Any, sidecar: Sidecar, *, refuse: Refuse = refuse_wrong) -> str:
    """Check that AR prompts begin and end as they did in training; returns the template.

    Args:
        refuse: told that the tokenizer has a BOS but does not put exactly one, or that the
            prompt does not end in the pinned suffix; raises, unless a user knows better.

    Raises:
        UserError: no AR template.
    """
    where, template = sidecar.path, sidecar.ar_template
    if template is None:
        raise UserError(f"{where}: no AR prompt template (prompt_templates.ar or .critic)")
    (ids,) = ar_prompt_ids(tokenizer, template, ["x"])
    bos = tokenizer.bos_token_id
    if bos is not None and ids.count(bos) != 1:
        refuse(
            f"{where}: the AR prompt holds BOS {ids.count(bos)} times, expected once; "
            "the tokenizer's special tokens are not those of training"
        )
    suffix = sidecar.tokens.ar_suffix_ids
    if suffix and tuple(ids[-len(suffix) :]) != suffix:
        refuse(
            f"{where}: the AR prompt ends in tokens {ids[-len(suffix) :]}, "
            f"the sidecar says {list(suffix)}; use the tokenizer of this checkpoint"
        )
    return template


def end_token_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """Every token that ends an answer.

    Models have several (Qwen3 has two), spread over the generation config, the config and the
    tokenizer, and a merged checkpoint may have lost its generation config; so the token that the
    chat template itself puts behind an answer counts as well.
    """
    found: set[int] = set()
    configs = (getattr(model, "generation_config", None), model.config, tokenizer)
    for config in configs:
        ids = getattr(config, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [ids] if ids is not None else [])
    closing = _token_behind_answer(tokenizer)
    if closing is not None:
        found.add(closing)
    if not found:
        raise UserError(
            f"{tokenizer.name_or_path}: no end token known; set eos_token in the tokenizer"
        )
    return frozenset(found)


def _token_behind_answer(tokenizer: Any) -> int | None:
    """The special token that the chat template writes right behind an assistant's answer."""
    answer = "answer"
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}]
    try:
        (text,) = rendered_chats(tokenizer, [messages], add_generation_prompt=False)
    except UserError:  # templates are programs; one that cannot render this tells us nothing
        return None
    _, found, tail = text.rpartition(answer)
    ids = token_ids(tokenizer, tail, special_tokens=False) if found and tail else []
    return ids[0] if ids and ids[0] in tokenizer.all_special_ids else None


def read_explanation(response: str, *, ended: bool) -> str | None:
    """The explanation inside a response, stripped; ``""`` if empty, ``None`` if failed.

    A response that hit the token cap has failed even if a closing tag occurs in it; counting it
    would reward running on (docs/failures.md).
    """
    match = _EXPLANATION.search(behind_thought(response)) if ended else None
    return match.group(1).strip() if match else None


def read_open_explanation(response: str) -> str | None:
    """The explanation as far as a response that may be cut has come, stripped.

    ``None`` where it has not begun. What has begun of a closing tag at the cut is left out.
    """
    closed = _EXPLANATION.search(behind_thought(response))
    if closed:
        return closed.group(1).strip()
    _, thought_end, answer = response.partition(_THOUGHT_END)
    _, opened, said = (answer if thought_end else response).partition(_OPENING)
    if not opened:
        return None
    begun = next((n for n in range(len(_CLOSING) - 1, 0, -1) if said.endswith(_CLOSING[:n])), 0)
    # A character of several tokens that is cut in two is decoded as a replacement character.
    return said[: len(said) - begun].rstrip("\ufffd").strip()


def opening_tokens(tokenizer: Any) -> int:
    """Tokens of the opening tag, by which an answer is longer than its explanation so far."""
    return len(token_ids(tokenizer, _OPENING, special_tokens=False))


def behind_thought(response: str) -> str:
    """The part of a response that holds its answer: what follows a thought, if one precedes it.

    A thought may quote the tags; an explanation may quote the end of a thought.
    """
    _, _, answer = response.partition(_THOUGHT_END)
    return answer if _EXPLANATION.search(answer) else response


def opens_thought(tokenizer: Any, prompt: AvPrompt) -> bool:
    """Whether the chat template itself writes the beginning of a thought before each answer."""
    tail = tokenizer.decode(list(prompt.ids[prompt.marker + 1 :]), skip_special_tokens=False)
    return str(tail).rstrip().endswith(_THOUGHT)


class AnswerDecoder:
    """Says what an AV wrote: without special tokens, but with the tags.

    Some trainers add the tags to the tokenizer as special tokens; a decoder that leaves out all
    of these would lose them, and every answer would seem to have failed.

    Args:
        tokenizer: of the AV.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = _special_tokens(tokenizer)
        tags = {token for token, text in special.items() if _is_of_a_tag(text)}
        #: What to leave out by hand; ``None`` where the tokenizer leaves out the right ones.
        self._left_out = special.keys() - tags if tags else None

    def __call__(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of token ids."""
        if not rows:
            return []
        if self._left_out is None:
            return list(self._tokenizer.batch_decode(list(rows), skip_special_tokens=True))
        kept = [[token for token in row if token not in self._left_out] for row in rows]
        return list(self._tokenizer.batch_decode(kept, skip_special_tokens=False))


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Every token that ``skip_special_tokens`` leaves out: id → text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {token: each.content for token, each in added.items() if each.special}
    for token in tokenizer.all_special_ids:
        found.setdefault(token, str(tokenizer.convert_ids_to_tokens(token)))
    return found


def _is_of_a_tag(text: str) -> bool:
    """Whether a token holds a tag, or is a part of one (``</``, ``explanation``)."""
    stripped = text.strip()
    return any(
        tag in text or (stripped and stripped in tag)
        for tag in (_OPENING, _CLOSING, _THOUGHT, _THOUGHT_END)
    )


def content_tokens(decode: AnswerDecoder, ids: Sequence[int], explanation: str) -> int:
    """How many tokens of a response hold its explanation; the others are tags and end token.

    A token that holds a part of a tag and a part of the explanation counts as content, one that
    only holds white space at the explanation's ends does not.

    Args:
        decode: of the AV's tokenizer.
        ids: the response, up to and including its end token.
        explanation: what :func:`read_explanation` made of it.
    """
    if not explanation:
        return 0

    def said(part: Sequence[int]) -> str:
        (text,) = decode([part])
        return text

    tokens = range(1, len(ids) + 1)
    whole = said(ids)
    if behind_thought(whole) != whole:
        thought = bisect_left(tokens, True, key=lambda length: _THOUGHT_END in said(ids[:length]))
        ids = ids[tokens[thought] :]
        tokens = range(1, len(ids) + 1)
    if said(ids).count(_CLOSING) > 1:
        # Only what stands before the first closing tag behind the opening one matters.
        ended = bisect_left(
            tokens, True, key=lambda length: _CLOSING in said(ids[:length]).partition(_OPENING)[2]
        )
        ids = ids[: tokens[ended]]
    # From both ends, because tags are short and explanations long.
    first = next(length for length in tokens if said(ids[:length]).partition(_OPENING)[2].strip())
    last = next(length for length in tokens if said(ids[-length:]).rpartition(_CLOSING)[0].strip())
    return len(ids) - (first - 1) - (last - 1)


def cjk_share(text: str) -> float:
    """Share of CJK characters: an alarm that the marker, not the vector, is being described."""
    # Looking a name up is slow, and so is looking at each character; nearly all are ASCII.
    if text.isascii():
        return 0.0
    unusual = (char for char in text if not char.isascii())
    names = (unicodedata.name(char, "") for char in unusual)
    return sum(any(script in name for script in _CJK_SCRIPTS) for name in names) / len(text)
