"""``hf:MODEL_OR_FOLDER``: a local transformers model, chat or seq2seq, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nla_audit.checkpoint.fingerprint import file_hashes
from nla_audit.errors import UserError, first_line
from nla_audit.llm.cache import AnswerCache, key_of
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.interface import (
    Account,
    Answer,
    Closing,
    Progress,
    Question,
    Request,
    silent,
)
from nla_audit.llm.prompts import Rewriting

Given = TypeVar("Given")
Asked = TypeVar("Asked", bound=Question)


class LocalModel(Closing):
    """A :class:`~nla_audit.llm.interface.LanguageModel` on this machine, greedy and batched.

    A chat model answers whole requests in JSON, like an endpoint. A seq2seq model is given each
    line after the task's name, as T5 paraphrasers are trained, and answers no questions.

    Args:
        model: folder, or owner/name on the Hub; code that comes with it is never run.
        cache: of answers.
        batch_size: requests generated together.
        max_new_tokens: most tokens of an answer.

    Raises:
        UserError: there is no such model, or it has no chat template.
    """

    def __init__(
        self,
        model: str,
        *,
        cache: AnswerCache | None = None,
        batch_size: int = 16,
        max_new_tokens: int = 512,
    ) -> None:
        # Here: transformers is slow to import, and the other writers need none of it.
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        from nla_audit.checkpoint.backbone import Placement, read_config, read_tokenizer
        from nla_audit.checkpoint.declared_size import check_size
        from nla_audit.checkpoint.fetch import local_folder
        from nla_audit.checkpoint.formats import check_weight_files, recognise

        self.name = f"hf:{model}"
        self.account = Account()
        self._cache = cache or AnswerCache(None)
        self._batch_size = batch_size
        self._max_new_tokens = max_new_tokens
        try:
            folder = local_folder(model)
            if recognise(folder).role == "ar":
                raise UserError("it is an AR, which writes no text: name a chat or seq2seq model")
            config = read_config(folder, Placement())
            check_weight_files(folder)
            self._is_seq2seq = bool(config.is_encoder_decoder)
            kind: Any = AutoModelForSeq2SeqLM if self._is_seq2seq else AutoModelForCausalLM
            check_size(folder, config, kind=kind)
            self._tokenizer: Any = read_tokenizer(folder, Placement())
            self._tokenizer.padding_side = "left"
            options = Placement().options()
            self._model: Any = kind.from_pretrained(str(folder), config=config, **options).eval()
        except UserError as error:
            raise UserError(f"hf:{model}: cannot be loaded ({error})") from None
        except Exception as error:  # a stranger's files make it fail in any way
            raise UserError(
                f"hf:{model}: cannot be loaded ({first_line(error)}): check the name"
            ) from None
        # Part of the key of every answer: a folder may hold another model tomorrow.
        self._version = file_hashes([folder])
        if not self._is_seq2seq and not self._tokenizer.chat_template:
            raise UserError(f"hf:{model}: no chat template: name a chat or a seq2seq model")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._takes_system = not self._is_seq2seq and self._has_system_role()

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; equal requests are asked once."""
        rewritings = [Rewriting(request) for request in requests]
        made = self._rewritten if self._is_seq2seq else self._chatted
        return self._answers(rewritings, made, "writing", progress)

    def ask(
        self, questions: Sequence[Question], *, stage: str, progress: Progress = silent
    ) -> list[Answer]:
        """``[n]`` answers; equal questions are asked once.

        Raises:
            UserError: it is a seq2seq model.
        """
        if self._is_seq2seq:
            raise UserError(f"{self.name}: a seq2seq model answers no questions: name a chat model")
        return self._answers(questions, self._chatted, stage, progress)

    def _answers(
        self,
        questions: Sequence[Asked],
        made: Callable[[Sequence[Asked]], list[Answer]],
        stage: str,
        progress: Progress,
    ) -> list[Answer]:
        settings = {"max_new_tokens": self._max_new_tokens, "model": self._version}
        keys = [key_of(self.name, question.messages(), settings) for question in questions]
        answers, waiting = self._cache.known(keys, questions)
        self.account.add(cached=len(answers))
        # Texts of like length together: a batch pads to its longest.
        order = sorted(waiting, key=lambda key: (len(waiting[key].messages()[1]["content"]), key))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            self.account.add(requests=len(batch))
            written = made([waiting[key] for key in batch])
            for key, answer in zip(batch, written, strict=True):
                answers[key] = answer
                if answer.lines is None:
                    self.account.fail(answer.reason or "no answer")
                else:
                    self._cache.put(key, answer.lines)
            progress(stage, len(answers), len(answers) + len(order) - start - len(batch))
        return [answers[key] for key in keys]

    def _rewritten(self, rewritings: Sequence[Rewriting]) -> list[Answer]:
        """By a seq2seq model."""
        requests = [one.request for one in rewritings]
        prompts = [f"{r.task}: {line}" for r in requests for line in r.lines]
        made = iter(self._generated(prompts))
        lines = [[next(made) for _ in request.lines] for request in requests]
        return [_answer(one.check, each) for one, each in zip(rewritings, lines, strict=True)]

    def _chatted(self, questions: Sequence[Question]) -> list[Answer]:
        """By a chat model."""
        contents = self._generated(self._chat_prompts(questions))
        return [_answer(one.read, each) for one, each in zip(questions, contents, strict=True)]

    def _chat_prompts(self, questions: Sequence[Question]) -> list[str]:
        """The messages of each question as the chat template writes them.

        Raises:
            UserError: a special token could be read out of the text.
        """
        from nla_audit.nla.chat_template import rendered_chats

        specials = set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        chats = []
        for question in questions:
            system, user = question.messages()
            ids = self._tokenizer(user["content"], add_special_tokens=False)["input_ids"]
            if specials & set(ids):
                raise UserError(
                    f"{self.name}: its tokenizer reads a special token out of plain text: name a "
                    "model whose special tokens are marked by brackets"
                )
            chats.append([system, user] if self._takes_system else [_joined(system, user)])
        return rendered_chats(self._tokenizer, chats)

    def _has_system_role(self) -> bool:
        """Whether the chat template writes a system message; some refuse it, some leave it out."""
        from nla_audit.nla.chat_template import TemplateFailed, rendered_chats

        chat = [{"role": "system", "content": "of old"}, {"role": "user", "content": "of new"}]
        try:
            (text,) = rendered_chats(self._tokenizer, [chat])
        except TemplateFailed:
            return False
        return "of old" in text

    def _generated(self, prompts: Sequence[str]) -> list[str]:
        import torch

        # The chat template has written the special tokens already. A seq2seq model's prompt is
        # the text itself, in which "</s>" is four characters.
        encoded = self._tokenizer(
            list(prompts),
            return_tensors="pt",
            padding=True,
            add_special_tokens=self._is_seq2seq,
            split_special_tokens=self._is_seq2seq,
        ).to(self._model.device)
        encoded.pop("token_type_ids", None)
        with torch.inference_mode():
            out = self._model.generate(
                **encoded,
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = out if self._is_seq2seq else out[:, encoded["input_ids"].shape[1] :]
        self.account.add(
            input_tokens=int(encoded["attention_mask"].sum()),
            output_tokens=int((new != self._tokenizer.pad_token_id).sum()),
        )
        return list(self._tokenizer.batch_decode(new, skip_special_tokens=True))


def _joined(system: dict[str, str], user: dict[str, str]) -> dict[str, str]:
    return {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}


def _answer(read: Callable[[Given], tuple[str, ...]], given: Given) -> Answer:
    try:
        return Answer(read(given))
    except NotAnAnswer as error:
        return Answer(None, str(error))
