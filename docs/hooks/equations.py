"""Equations of the pages as MathML, which a browser draws without a script: a page needs nothing from elsewhere.

They are written as LaTeX between dollar signs, which GitHub shows too; ``pymdownx.arithmatex`` marks them.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL)


def _draw(match: re.Match[str]) -> str:
    tag, latex = match.groups()
    drawn = convert(html.unescape(latex).strip(), display="block" if tag == "div" else "inline")
    if "\\" in drawn:  # a command that is not known would be shown as it is
        raise PluginError(f"The equation {latex.strip()} has a command that latex2mathml does not know.")
    return f'<{tag} class="equation">{drawn}</{tag}>'


def on_page_content(content: str, **_: Any) -> str:
    """Return a page's HTML with its equations drawn."""
    return _EQUATION.sub(_draw, content)
