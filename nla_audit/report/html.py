"""``report.html``: one file that needs nothing else and may fetch nothing."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nla_audit.report.document import ReportDocument
from nla_audit.report.escape import safe_text, script_json
from nla_audit.report.tables import label


def render_html(document: ReportDocument) -> str:
    """The whole report as one page.

    Its content security policy forbids every request, and allows only the scripts whose hash
    it names, so that nothing an explanation contains can run or call out.
    """
    environment = Environment(
        loader=PackageLoader("nla_audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters["label"] = label
    environment.filters["breakable"] = _breakable
    environment.filters["passage"] = _passage
    names = ["report.js"] if document.viewer is None else ["report.js", "viewer.js"]
    scripts = [_asset(environment, name) for name in names]
    data = None if document.viewer is None else Markup(script_json(document.viewer))
    return environment.get_template("report.html").render(
        report=document.report,
        sections=document.sections,
        record=document.report.record,
        colours=document.colours,
        policy=_policy(scripts),
        style=Markup(_asset(environment, "report.css")),
        scripts=[Markup(script) for script in scripts],
        viewer_data=data,
        svg=Markup,
    )


def _asset(environment: Environment, name: str) -> str:
    """A file of ours, verbatim (not a template, so braces in it mean nothing)."""
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return source


def _breakable(text: str) -> Markup:
    """A name that a narrow window may break after its underscores."""
    return escape(safe_text(text)).replace("_", Markup("_<wbr>"))


def _passage(text: str) -> Markup:
    """A text with its line breaks (the page keeps them) and without control characters."""
    return escape(safe_text(text, newlines=True))


def _policy(scripts: list[str]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    # Styles are inline because the figures' SVG carries style attributes.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _clean(value: Any) -> Any:
    """Strip control characters from every text; markup is ours already."""
    return safe_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
