"""What a recipe says of the model to explain and of the data: texts, activations, gold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nla_audit.train.section import NonNegative, Positive, Rate, RecipeSection, Share, check_address


class World(RecipeSection):
    """The synthetic language and the small transformer that is trained on it from scratch."""

    words: Annotated[int, Field(gt=0, le=10_000)] = 40
    """Words of a document."""
    peakiness: Rate = 2.2
    """Standard deviation of the logits a fact adds to its words: higher is easier to read off."""
    d_model: Annotated[int, Field(gt=0, le=65_536, multiple_of=4)] = 96
    """Width of the residual stream; a multiple of 4 attention heads."""
    blocks: Annotated[int, Field(ge=2, le=1024)] = 4
    """Decoder blocks."""
    steps: Positive = 600
    """Steps of training from scratch."""
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = 48
    """Documents of a step; every step has fresh ones."""
    learning_rate: Rate = 3e-3
    """Peak rate of AdamW, with a short warm-up and a cosine to zero."""
    documents: Annotated[int, Field(gt=0, le=100_000_000)] = 3000
    """Documents written for activations (the target never trains on these)."""


class Target(RecipeSection):
    """The model whose activations are explained; AV and AR start as copies of it."""

    model: str | None = None
    """A causal language model: a folder, or owner/name on the Hub. Leave out for a world."""
    world: World | None = None
    """Train a small target from scratch instead."""
    layer_index: NonNegative | None = None
    """Extraction layer K: the activation is the output of block K. By default about two thirds
    of the depth."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of target, AV and AR; auto is as saved, but bfloat16 for a wide float32 model on a
    CPU that multiplies in it. What is trained is float32 whatever this says: adapters, or
    all weights where there are none. So are sums, losses and optimisers."""
    device: str | None = None
    """For example cpu or cuda:0; by default a GPU where there is one."""
    load_in_4bit: bool = False
    """Quantise the AV in RL (needs bitsandbytes, a GPU and rl.lora). Runs are then saved as
    adapters only, because 4-bit weights cannot take them in."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Target:
        if (self.model is None) == (self.world is None):
            raise ValueError("give exactly one of target.model and target.world")
        return self


class Labeler(RecipeSection):
    """Who writes gold explanations where the data has none."""

    kind: Literal["openai", "transformers", "rule"] = "openai"
    """An OpenAI-compatible endpoint, a local transformers model, or no model: a rule that names
    the kind of document (what its doc_id has before a slash), key words and the last words."""
    key_words: Annotated[int, Field(ge=0, le=100)] = 5
    """Of the rule: at most so many."""
    last_words: Annotated[int, Field(ge=1, le=100)] = 10
    """Of the rule: so many are quoted."""
    half_life: Annotated[float | None, Field(gt=0.0, allow_inf_nan=False)] = None
    """Of the rule: a key word counts half so many words before the end; by default all alike."""
    model: str = ""
    """Name the endpoint knows the model by, or a folder or owner/name; the rule has none."""
    base_url: str = "http://localhost:8000/v1"
    """Of the endpoint; its key is read from OPENAI_API_KEY."""
    max_new_tokens: Positive = 200
    """Cap on an explanation."""
    workers: Positive = 8
    """Requests at once."""
    temperature: Annotated[float | None, Field(ge=0.0, allow_inf_nan=False)] = None
    """Sent along to an endpoint; without it the model's own holds."""
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls max_new_tokens; reasoning models take max_completion_tokens."""
    prompt: str = (
        "Below is the beginning of a text, cut off at some token. Name the two or three features "
        "of it that would best predict what comes next; the last must describe the very end of "
        "the text. Plain sentences, no list, no preamble.\n\n{text}"
    )
    """What it is asked; {text} is the source up to the activation's token."""

    @model_validator(mode="after")
    def _has_a_model(self) -> Labeler:
        if not self.model and self.kind != "rule":
            raise ValueError("data.labeler.model is missing; add it, or say kind: rule")
        return self

    @model_validator(mode="after")
    def _address_holds_no_key(self) -> Labeler:
        """The recipe is written down; a key must not be."""
        check_address(self.base_url, "data.labeler")
        return self


class Passages(RecipeSection):
    """Long documents are cut, so that more of them is read than the beginning."""

    characters: Annotated[int, Field(ge=50, le=10**9)] = 700
    """Of a passage, at most; it ends with a paragraph, a line or a sentence where it can."""
    at_most: Positive | None = None
    """Passages in all, drawn at random; by default every one."""


class Data(RecipeSection):
    """Activations and the gold explanations of the warm start."""

    table: str | None = None
    """Ready-made Parquet: activation_vector, doc_id, and response (the gold explanation)."""
    texts: str | None = None
    """Documents to extract from: Parquet, JSONL or CSV with a text column (and doc_id), a .txt
    file, or a folder of either."""
    passages: Passages | None = None
    """Cut the documents of texts first; passages of one are held out together or not at all."""
    positions_per_document: Positive = 4
    """Activations taken from a document, at tokens drawn at random."""
    first_position: NonNegative = 20
    """Tokens before this one are never taken: too little has been read there."""
    context_tokens: Positive = 512
    """A document is cut after this many tokens."""
    held_out_share: Share = 0.1
    """Share of documents (never of rows) kept from all training."""
    labeler: Labeler | None = None
    """Writes gold explanations for rows without one."""
