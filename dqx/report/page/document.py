"""The page's HTML from its parts: template, style, script and data, under a strict policy."""

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any

from dqx.report.page.encode import script_json

_STYLES = ("uplot.min.css", "style.css")
_SCRIPTS = (
    "uplot.min.js", "data.js", "lines.js", "shapes.js", "tables.js",
    "page.js", "search.js", "fields.js", "details.js", "main.js",
)  # fmt: skip


def document(content: Mapping[str, Any], watch: tuple[float, str] | None = None) -> str:
    """The page as one HTML text, which needs no other file and no network.

    Nothing but the style and the scripts of dqx, told by their checksums, may run in it.

    Args:
        content: what it shows, of `dqx.report.page.content`.
        watch: of a page that is served: how often it asks for new data, in seconds, and the mark
            of those it has.
    """
    style = "\n".join(_asset(name) for name in _STYLES)
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    policy = [
        "default-src 'none'",
        f"script-src '{_checksum(script)}'",
        f"style-src '{_checksum(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if watch is not None:
        policy.append("connect-src 'self'")
    filled = {
        "policy": "; ".join(policy),
        "title": html.escape(f"{content['title']} - dqx"),
        "watch": _watch(watch),
        "style": style,
        "script": script,
        "data": script_json(content),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _asset("page.html"))


def _watch(watch: tuple[float, str] | None) -> str:
    if watch is None:
        return ""
    seconds, mark = watch
    return f'<meta name="dqx-watch" content="{seconds:g}" data-mark="{html.escape(mark)}">'


def _asset(name: str) -> str:
    path = importlib.resources.files("dqx.report.page").joinpath("assets", name)
    return path.read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    """How a policy names an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
