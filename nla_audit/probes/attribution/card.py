"""What the attribution is, in words: from here come its help, options and captions."""

from __future__ import annotations

from pathlib import Path

from nla_audit.findings import Card, Metric, Option, Unit, probe_with_command

QUESTION = "Which words, claims and order of claims carry the reconstruction?"
METRICS = (
    Metric("explanations", "count", "neither", "explanations read", interval=False),
    Metric("left_out", "count", "lower", "explanations that were not", interval=False),
    Metric("fve", "FVE", "higher", "mean FVE of whole explanations"),
    Metric("fve_above_chance", "FVE", "higher", "fve less that against another activation"),
    Metric("token_saliency", "FVE points", "neither", "FVE lost with one token deleted"),
    Metric(
        "token_saliency_elsewhere", "FVE points", "neither", "the same against another activation"
    ),
    Metric("claim_saliency", "FVE points", "neither", "FVE lost with one claim deleted"),
    Metric(
        "claim_saliency_elsewhere", "FVE points", "neither", "the same against another activation"
    ),
    Metric(
        "quoted_token_share",
        "share",
        "neither",
        "share of the tokens in quotations, their marks included",
    ),
    Metric(
        "quoted_gain_share",
        "share",
        "neither",
        "share of the FVE gained by reading on that comes with them",
    ),
    Metric(
        "quoted_over_unquoted",
        "FVE points",
        "neither",
        "by how much a word inside quotes costs more than one outside",
    ),
    Metric(
        "accrual",
        "share",
        "neither",
        "share of the gain that is there on average over a text; 50 % where it comes evenly",
    ),
    Metric(
        "order_gain",
        "FVE points",
        "neither",
        "FVE gained by the order that a greedy search finds, where it was not selected",
    ),
    Metric("order_gain_searched", "FVE points", "neither", "the same where it was"),
    Metric(
        "order_gain_searched_elsewhere",
        "FVE points",
        "neither",
        "what the same search gains for another activation",
    ),
    Metric(
        "own_over_random",
        "FVE points",
        "neither",
        "FVE of the AV's own order less that of random ones",
    ),
    Metric("kendall_tau", "correlation", "neither", "between the own order and that found"),
    Metric("kendall_tau_elsewhere", "correlation", "neither", "the same for another activation"),
)
COLUMNS: dict[str, Unit] = {"token_share": "share", "gain_share": "share"}

#: Explanations of each model that are read.
DEFAULT_LIMIT = 100
OPTIONS = (
    Option(
        "pair",
        str,
        None,
        metavar="PAIR",
        help="The pair whose AR reads; --ar names one of several.",
    ),
    Option("ar", str, None, metavar="PATH", help="The AR that reads."),
    Option("completions", str, None, metavar="TABLE", help="The explanations."),
    Option("activations", str, None, metavar="FILE", help="What they explain, joined by idx."),
    Option(
        "limit",
        int,
        DEFAULT_LIMIT,
        metavar="N",
        least=0,
        help="Explanations of each model, the first by idx; 0 is all. One of 100 words is read "
        "in about 350 pieces.",
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
        "keep_scores",
        Path,
        None,
        metavar="FILE",
        help="Write what every word is worth, a row each, to go on from.",
    ),
)
CARD = Card(
    name="attribution",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"doc_id": "intervals resample activations instead of documents"},
    unit="explanation, taken apart into words (words, numbers and punctuation marks, the same for "
    "every AR) and claims; resampled over activations or documents",
    control="the same texts read against another activation, and, for the order that a greedy "
    "search finds, texts on which it was not selected",
    high_means="FVE is lost with the word or claim",
    example="nla-audit attribution --pair PAIR --completions c.parquet --activations a.parquet",
    metrics=METRICS,
    columns=COLUMNS,
    options=OPTIONS,
)
probe_with_command(CARD)
