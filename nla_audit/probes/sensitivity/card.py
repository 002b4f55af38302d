"""What the sensitivity probe is, in words: from here come its help, options and captions."""

from __future__ import annotations

from pathlib import Path

from nla_audit.findings import Card, Metric, Option, Unit, probe_with_command
from nla_audit.llm.options import endpoint_options
from nla_audit.nla.segments import SEPARATOR

QUESTION = "Of a concept planted at a known strength: when is it said, and when only carried?"
METRICS = (
    Metric(
        "alpha50",
        "share",
        "lower",
        "share of the activation's norm that must be planted for half to name the concept",
    ),
    Metric("times_reference", "ratio", "lower", "alpha50 over that of the reference model"),
    Metric(
        "named_unplanted",
        "share",
        "lower",
        "share that names it where nothing was planted: the false alarms",
    ),
    Metric(
        "named_random",
        "share",
        "lower",
        "share that names it where a random direction was planted as strongly as can be",
    ),
    Metric("named_strongest", "share", "neither", "share that names it at the strongest strength"),
    Metric("tokens_before", "tokens", "neither", "tokens before the first mention"),
    Metric(
        "tokens_more",
        "tokens",
        "neither",
        "tokens that explanations grow by at the strongest strength",
    ),
    Metric(
        "carried_said",
        "share",
        "neither",
        "share of the planted component that the AR brings back from texts that name it",
    ),
    Metric("carried_unsaid", "share", "lower", "the same from texts that do not"),
    Metric(
        "carried_random", "share", "neither", "the same of random directions, mean", interval=False
    ),
    Metric(
        "carried_variance",
        "share",
        "neither",
        "the same of random directions with the concept's share of variance, mean",
        interval=False,
    ),
    Metric(
        "carried_other",
        "share",
        "neither",
        "how far the concept comes back where another was planted",
        interval=False,
    ),
    Metric(
        "q_value",
        "p value",
        "neither",
        "of carried_unsaid against every control, adjusted over the models",
        interval=False,
    ),
    Metric("activations", "count", "neither", "activations with an explanation", interval=False),
    Metric("missing", "count", "lower", "planted activations without one", interval=False),
)
_SHARES: dict[str, Unit] = dict.fromkeys(
    (
        "named",
        "in_first_claim",
        "in_first_segment",
        "found_of_words",
        "named_planted",
        "named_variance",
        "named_concept",
        "component_share",
        "cross_share",
        "guess",
        "lapse",
        "detectable",
        "strength",
        "false_alarms",
    ),
    "share",
)
COLUMNS: dict[str, Unit] = {
    **_SHARES,
    "tokens_more_named": "tokens",
    "tokens_more_unnamed": "tokens",
    "segments_before": "place",
    "unanswered": "count",
}

OPTIONS = (
    Option(
        "activations",
        str,
        None,
        metavar="FILE",
        help="Held-out activations to plant into: a Parquet file with activation_vector.",
    ),
    Option(
        "concept",
        str,
        None,
        metavar="NAME",
        help="A contrast set that comes with nla-audit, or a YAML file of one: what the concept "
        "is, the words that name it, pairs of texts with and without it.",
    ),
    Option(
        "target",
        str,
        None,
        metavar="MODEL",
        help="The model whose activations the pair explains: it reads the concept's texts, and "
        "the difference of means is the direction.",
    ),
    Option(
        "direction",
        str,
        None,
        metavar="FILE[:ROW]",
        help="The direction itself, in place of --target: .npy, .safetensors or .parquet; ROW a "
        "number or a tensor's name.",
    ),
    Option(
        "words",
        str,
        None,
        metavar="NAME=PHRASE|PHRASE",
        help="With --direction: the concept's name and what counts as naming it, in place of "
        "--concept.",
    ),
    Option(
        "other",
        str,
        None,
        metavar="NAME",
        help="A second concept, planted as a control: as --concept; needs --target.",
    ),
    Option(
        "layer",
        int,
        None,
        metavar="K",
        least=0,
        help="The layer whose output --target is read at.  [default: as the activations say]",
    ),
    Option(
        "ar",
        str,
        None,
        metavar="PATH",
        help="The AR of every pair: one of several, or a frozen one.",
    ),
    Option(
        "strengths",
        str,
        "0.05,0.1,0.2,0.4,0.8",
        metavar="LIST",
        help="The ladder, as shares of an activation's norm.",
    ),
    Option(
        "limit",
        int,
        100,
        metavar="N",
        least=1,
        help="Activations that are planted into, spread over the file. Each is explained four "
        "times for each strength.",
    ),
    Option(
        "detector",
        str,
        "words",
        choices=("words", "similarity", "llm"),
        help="What counts as a mention; similarity needs --similarity, llm needs --llm, or a TABLE "
        "that was made with it.",
    ),
    Option(
        "similarity",
        str,
        None,
        metavar="MODEL",
        help="sentence-transformers model (name or folder) that also looks for the concept.",
    ),
    Option(
        "llm",
        str,
        None,
        metavar="MODEL",
        help="openai:MODEL@URL or hf:MODEL_OR_FOLDER: a language model that is also asked whether "
        "each explanation names the concept, and where. With a TABLE it is asked about its texts, "
        "and a table with its answers is written into --out.",
    ),
    Option(
        "cache",
        Path,
        None,
        metavar="FILE",
        help="Where answers of --llm are kept: nothing is asked and paid for twice.  [default: "
        "answers.sqlite in --out]",
    ),
    *endpoint_options("llm_temperature"),
    Option(
        "separator",
        str,
        SEPARATOR,
        metavar="TOKEN",
        help="The token by which an AV that was trained to ends segments of its explanations.",
    ),
    Option(
        "temperature",
        float,
        1.0,
        metavar="T",
        least=0,
        help="Of the AV; 0 is greedy. Texts of one activation share their random numbers.",
    ),
    Option(
        "max_new_tokens",
        int,
        160,
        metavar="N",
        least=1,
        help="Cap; an explanation that hits it has failed.",
    ),
    Option(
        "batch_size",
        int,
        256,
        metavar="N",
        least=1,
        help="Explanations generated at once; halved where memory runs out.",
    ),
    Option(
        "token_budget",
        int,
        None,
        metavar="N",
        least=1,
        help="Tokens the AR reads at once.  [default: by device]",
    ),
    Option(
        "reference",
        str,
        None,
        metavar="MODEL",
        help="The model that thresholds are compared with.  [default: RL without a penalty]",
    ),
)
CARD = Card(
    name="sensitivity",
    question=QUESTION,
    reads=("model", "idx", "kind", "strength", "named"),
    uses={
        "component": "nothing is known of what the AR carries",
        "doc_id": "intervals resample activations instead of documents",
        "content_tokens": "the price in tokens counts tags as well",
    },
    unit="activation, explained once for each direction and strength; resampled over activations "
    "or documents",
    control="unplanted activations (false alarms); random directions, and ones with the concept's "
    "share of the variance of activations; another concept; the same texts against the unplanted "
    "activation; the concept planted where it is already present",
    high_means="alpha50: the concept must be strong before it is named; carried_unsaid above the "
    "controls: the AR reads it from texts that do not name it",
    example="nla-audit sensitivity p0.0 p0.006 --ar warm-start/ar --activations a.parquet \\\n"
    "    --concept sentiment --target Qwen/Qwen3-8B --out sensitivity\n"
    "nla-audit sensitivity PAIR --activations a.parquet --direction probe.npy:3 \\\n"
    "    --words 'evaluation=being tested|evaluation' --out sensitivity\n"
    "nla-audit sensitivity p0.0=rl/p0.0/adapter p0.006=rl/p0.006/adapter --ar warm-start/ar \\\n"
    "    --activations a.parquet --direction probe.npy --words 'evaluation=tested' \\\n"
    "    --engine vllm --out sensitivity\n"
    "nla-audit sensitivity sensitivity/sensitivity.parquet    # again, without pairs\n"
    "nla-audit sensitivity sensitivity/sensitivity.parquet --concept sentiment \\\n"
    "    --llm openai:MODEL@http://localhost:8000/v1 --detector llm --out asked",
    metrics=METRICS,
    columns=COLUMNS,
    options=OPTIONS,
)
probe_with_command(CARD)
