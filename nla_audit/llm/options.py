"""The options by which commands say how an endpoint is asked, and what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nla_audit.errors import UserError
from nla_audit.findings import Option

if TYPE_CHECKING:
    from nla_audit.llm.client import EndpointSettings


def endpoint_options(temperature: str = "temperature") -> tuple[Option, ...]:
    """Price, token limit and temperature.

    Args:
        temperature: name of the option of that, where a command has a temperature of another
            kind.
    """
    return (
        Option(
            "price",
            (float, float),
            None,
            metavar="IN OUT",
            least=0,
            help="Price of a million tokens read and written by the endpoint, to tell the cost.",
        ),
        Option(
            "max_tokens",
            int,
            2048,
            metavar="N",
            least=1,
            help="Most tokens of an endpoint's answer, its reasoning included.",
        ),
        Option(
            "token_limit_name",
            str,
            "max_tokens",
            choices=("max_tokens", "max_completion_tokens"),
            help="What the endpoint calls that limit; reasoning models take the second.",
        ),
        Option(
            temperature,
            str,
            "0",
            metavar="T",
            help="Sent to an endpoint; none: not sent, for models that take their own only.",
        ),
    )


def endpoint_settings(
    arguments: Mapping[str, Any], temperature: str = "temperature", **further: int
) -> EndpointSettings:
    """What :func:`endpoint_options` were given, with ``further`` settings.

    Raises:
        UserError: the temperature is no number from 0 on, and not ``none``.
    """
    from nla_audit.llm.client import EndpointSettings  # HTTP: keeps --help fast

    flag = f"--{temperature.replace('_', '-')}"
    return EndpointSettings(
        temperature=_temperature(arguments[temperature], flag),
        max_tokens=arguments["max_tokens"],
        token_limit_name=arguments["token_limit_name"],
        **further,
    )


def _temperature(text: str, flag: str) -> float | None:
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise UserError(f"{flag} {text}: write a number from 0 on, or none")
    return value
