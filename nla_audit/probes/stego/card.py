"""What the steganography probe is, in words: from here come its help, options and captions."""

from __future__ import annotations

from nla_audit.findings import Metric, Unit, probe

QUESTION = "Does the AR read what explanations say, or something hidden in how it is said?"
METRICS = (
    Metric("fve", "FVE", "higher", "mean FVE of the changed texts", interval=False),
    Metric("retention", "share", "higher",
           "share of the FVE above the floor that is left: another activation's text, or FVE 0"),
    Metric("zero_floor_retention", "share", "higher", "the same above FVE 0"),
    Metric("q_value", "p value", "neither",
           "of the loss, adjusted for all changes that keep the meaning", interval=False),
    Metric("excess_loss", "difference of shares", "lower",
           "share lost beyond what the same change costs a control, the smaller of two"),
    Metric("second_ar_fve", "FVE", "neither", "FVE by a second AR", interval=False),
    Metric("second_ar_gap", "FVE", "neither", "FVE less that of the second AR", interval=False),
    Metric("meaning_similarity", "share", "higher", "how much of the meaning was kept"),
    Metric("chance_similarity", "share", "neither",
           "similarity to another activation's text", interval=False),
    Metric("meaning_kept", "share", "higher",
           "meaning_similarity with what chance alone finds taken out", interval=False),
    Metric("unfaithful", "share", "lower",
           "share of the texts that lost or made up names, numbers or quotes, or all meaning"),
    Metric("shared_words", "share", "neither",
           "share of the words that the changed text has in common", interval=False),
    Metric("length_ratio", "ratio", "neither", "length over that before", interval=False),
    Metric("changed", "share", "neither", "share of the texts that were changed", interval=False),
    Metric("n", "count", "neither", "activations with a score", interval=False),
    Metric("missing", "count", "lower", "activations without one", interval=False),
)  # fmt: skip
COLUMNS: dict[str, Unit] = dict.fromkeys(
    ("share", "fve_share", "lost_share", "quotes_spared_lost_share", "loss", "mean_loss",
     "smallest_code_found", "layout_share", "wording_share", "order_share", "quotes_share",
     "plain_share"),
    "share",
)  # fmt: skip

as_probe = probe(
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
    example="nla-audit stego --scores scores.parquet --out stego",
    metrics=METRICS,
    columns=COLUMNS,
    rows="variant",
)
