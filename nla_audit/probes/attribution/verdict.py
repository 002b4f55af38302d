"""The numbers of an attribution in plain sentences, which claim what the intervals allow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nla_audit.stats import Interval
from nla_audit.wording import count

#: A better order is worth saying from this many points of FVE on, however certain.
_MATERIAL = 0.5
#: FVE that is gained evenly over a text has half of it there on average.
_EVENLY = 0.5


def sentences(numbers: Mapping[str, Interval]) -> str:
    """The verdict on one model.

    Args:
        numbers: the headline, see :mod:`nla_audit.probes.attribution.finding`.
    """
    above = numbers["fve_above_chance"]
    if above.n == 0:
        return "Cannot tell: no explanation could be read beside another activation."
    if np.isnan(above.low):
        return f"Cannot tell: {count(above.n, 'explanation')} read are too few for an interval."
    if above.low <= 0:
        return (
            "Cannot tell: the explanations are no better for their own activation than for "
            f"another one ({_points(above, 100)} points of FVE)."
        )
    return " ".join((_quotes(numbers), _accrual(numbers["accrual"]), _order(numbers)))


def _quotes(numbers: Mapping[str, Interval]) -> str:
    apart, tokens = numbers["quoted_over_unquoted"], numbers["quoted_token_share"]
    if np.isnan(apart.value):
        return "Quoted and unquoted words cannot be compared: there is only one of the two."
    if np.isnan(apart.low):
        return "Too few explanations quote to tell whether quoted words carry more than others."
    measured = f"{_points(apart)} points a word"
    if apart.low > 0:
        first = f"Quoted words carry more than others ({measured})"
    elif apart.high < 0:
        first = f"Quoted words carry less than others ({measured})"
    else:
        first = f"Cannot tell whether quoted words carry more than others ({measured})"
    gain = numbers["quoted_gain_share"]
    if np.isnan(gain.value) or np.isnan(tokens.value):
        return f"{first}."
    return f"{first}: {tokens.value:.0%} of the tokens, {gain.value:.0%} of the FVE gained."


def _accrual(accrual: Interval) -> str:
    if np.isnan(accrual.low):
        return "Whether FVE accrues early cannot be told."
    share = f"{accrual.value:.2f} [{accrual.low:.2f}, {accrual.high:.2f}], {_EVENLY} is even"
    if accrual.low > _EVENLY:
        return f"FVE accrues early in the text ({share})."
    if accrual.high < _EVENLY:
        return f"FVE accrues late in the text ({share})."
    return f"FVE accrues neither early nor late ({share})."


def _order(numbers: Mapping[str, Interval]) -> str:
    gain, searched = numbers["order_gain"], numbers["order_gain_searched"]
    if gain.n == 0 and not np.isnan(searched.low):
        return _untested_order(searched, numbers["order_gain_searched_elsewhere"])
    if np.isnan(gain.low):
        return "Too few explanations of several claims to judge their order."
    random = numbers["own_over_random"]
    beside = f"the AV's own order is {_points(random)} points above a random one"
    if gain.low > 0 and gain.value >= _MATERIAL:
        return (
            f"Another order of the claims carries {_points(gain)} points more than the AV's own; "
            f"{beside}."
        )
    return (
        f"No better order of the claims than the AV's own was found ({_points(gain)} points once "
        f"rejoined, {_rounded(searched.value)} where it was selected); {beside}."
    )


def _untested_order(searched: Interval, elsewhere: Interval) -> str:
    """Where the gain could be judged only on the texts on which it was selected."""
    beside = (
        f"the search gains {_points(searched)} points, and {_points(elsewhere)} for another "
        "activation"
    )
    if searched.low > max(elsewhere.high, _MATERIAL):
        return f"Another order of the claims carries more than the AV's own: {beside}."
    if searched.high < _MATERIAL:
        return f"No better order of the claims than the AV's own was found: {beside}."
    return f"Whether another order would carry more than the AV's own cannot be told: {beside}."


def _points(interval: Interval, scale: float = 1.0) -> str:
    ends = (interval.value, interval.low, interval.high)
    value, low, high = (_rounded(scale * end) for end in ends)
    return f"{value} [{low}, {high}]"


def _rounded(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no minus before a zero
