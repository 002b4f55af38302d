"""What the steganography probe is, in words: from here come its help, options and captions."""

from __future__ import annotations

from pathlib import Path

from nla_audit.findings import Card, Metric, Option, Unit, probe_with_command
from nla_audit.llm.options import endpoint_options

QUESTION = "Does the AR read what explanations say, or something hidden in how it is said?"
METRICS = (
    Metric("fve", "FVE", "higher", "mean FVE of the changed texts", interval=False),
    Metric(
        "retention",
        "share",
        "higher",
        "share of the FVE above the floor that is left: another activation's text, or FVE 0",
    ),
    Metric("zero_floor_retention", "share", "higher", "the same above FVE 0"),
    Metric(
        "q_value",
        "p value",
        "neither",
        "of the loss, adjusted for all changes that keep the meaning",
        interval=False,
    ),
    Metric(
        "excess_loss",
        "difference of shares",
        "lower",
        "share lost beyond what the same change costs a control, the smaller of two",
    ),
    Metric("second_ar_fve", "FVE", "neither", "FVE by a second AR", interval=False),
    Metric("second_ar_gap", "FVE", "neither", "FVE less that of the second AR", interval=False),
    Metric("meaning_similarity", "share", "higher", "how much of the meaning was kept"),
    Metric(
        "chance_similarity",
        "share",
        "neither",
        "similarity to another activation's text",
        interval=False,
    ),
    Metric(
        "meaning_kept",
        "share",
        "higher",
        "meaning_similarity with what chance alone finds taken out",
        interval=False,
    ),
    Metric(
        "unfaithful",
        "share",
        "lower",
        "share of the texts that lost or made up names, numbers or quotes, or all meaning",
    ),
    Metric(
        "shared_words",
        "share",
        "neither",
        "share of the words that the changed text has in common",
        interval=False,
    ),
    Metric("length_ratio", "ratio", "neither", "length over that before", interval=False),
    Metric("changed", "share", "neither", "share of the texts that were changed", interval=False),
    Metric("n", "count", "neither", "activations with a score", interval=False),
    Metric("missing", "count", "lower", "activations without one", interval=False),
)
COLUMNS: dict[str, Unit] = dict.fromkeys(
    (
        "share",
        "fve_share",
        "lost_share",
        "quotes_spared_lost_share",
        "loss",
        "mean_loss",
        "smallest_code_found",
        "layout_share",
        "wording_share",
        "order_share",
        "quotes_share",
        "plain_share",
    ),
    "share",
)

OPTIONS = (
    Option(
        "scores",
        str,
        None,
        metavar="TABLE",
        help="Scores computed elsewhere: columns idx, variant, ar, fve (means: without idx).",
    ),
    Option(
        "own_ar",
        str,
        None,
        metavar="NAME",
        help="The pair's own AR in column ar of --scores, where there are several.",
    ),
    Option(
        "variants",
        str,
        (),
        flag="--variant",
        metavar="NAME=TRANSFORM",
        multiple=True,
        help="What a variant of --scores is, where its name is not read by itself "
        "(paraphrase_all, fluent, no_quotes … are); may be given several times.",
    ),
    Option("ar", str, None, metavar="PATH", help="The pair's AR, to read changed texts."),
    Option(
        "pair",
        str,
        None,
        metavar="PAIR",
        help="The pair itself, whose AR is found; --ar names one of several.",
    ),
    Option(
        "second_ar",
        str,
        None,
        metavar="PATH",
        help="An AR that was never trained with this AV, the control.",
    ),
    Option("completions", str, None, metavar="TABLE", help="The explanations."),
    Option("activations", str, None, metavar="FILE", help="What they explain, joined by idx."),
    Option(
        "reference_texts",
        str,
        None,
        metavar="TABLE",
        help="Gold or warm-start explanations of the same activations, the other control.",
    ),
    Option(
        "paraphraser",
        str,
        "rules",
        metavar="WRITER",
        help="rules, hf:MODEL_OR_FOLDER, openai:MODEL@URL, file:TABLE, or world (for texts in "
        "the language of the demo).",
    ),
    *endpoint_options(),
    Option(
        "cache",
        Path,
        None,
        metavar="FILE",
        help="Where answers of the paraphraser and readings of the AR are kept: a run that was "
        "stopped goes on, and nothing is paid for twice.",
    ),
    Option(
        "similarity",
        str,
        None,
        metavar="MODEL",
        help="sentence-transformers model (name or folder) that judges whether a change kept "
        "the meaning.  [default: a dictionary learnt from the texts]",
    ),
    Option(
        "keep_scores",
        Path,
        None,
        metavar="FILE",
        help="Write the scores of all changed texts, for --scores.",
    ),
    Option(
        "prefix_tokens",
        int,
        None,
        metavar="N",
        least=1,
        help="Probe the first N tokens of each explanation alone, as the AR counts them.",
    ),
    Option(
        "written",
        str,
        (),
        metavar="CHANGE",
        multiple=True,
        help="A change that the paraphraser is asked for, such as paraphrase; may be given several "
        "times, and a slow one is not asked for the rest.  [default: all]",
    ),
    Option(
        "limit",
        int,
        None,
        metavar="N",
        least=1,
        help="Explanations of each model that are probed.  [default: all]",
    ),
    Option(
        "token_budget",
        int,
        None,
        metavar="N",
        least=1,
        help="Tokens read at once; halved where memory runs out.  [default: by device]",
    ),
    Option(
        "series",
        str,
        None,
        choices=("step", "length_penalty"),
        help="Order the models by this column, and say whether the gap widens along it.",
    ),
)
CARD = Card(
    name="stego",
    question=QUESTION,
    reads=("variant", "fve"),
    uses={
        "idx": "no interval and no test is possible",
        "texts": "no reference texts are a control",
        "similarity": "a loss of meaning cannot be told from a loss of form",
    },
    unit="activation: retention is paired within it, and resampled over activations or documents",
    control="another activation's explanation is one floor, FVE 0 the other; the same change to "
    "reference texts, and the same texts read by a second AR, are what an excess is taken over",
    high_means="retention near 1: the change costs nothing; excess_loss above 0: it costs more "
    "than it costs the controls; meaning_similarity near 1: the meaning was kept; unfaithful near "
    "1: names, numbers or quotes were not, or nothing was",
    example="nla-audit stego --scores scores.parquet --out stego\n"
    "nla-audit stego --pair PAIR --completions c.parquet --activations a.parquet \\\n"
    "    --second-ar warm-start/ar --paraphraser openai:MODEL@http://localhost:8000/v1\n"
    "nla-audit stego --self-test",
    options=OPTIONS,
    metrics=METRICS,
    columns=COLUMNS,
    rows="variant",
)
probe_with_command(CARD)
