"""What the site reads differently in docstrings: ``Example:`` holds code, and roles such as ``:class:`` are links."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`")


def _link(match: re.Match[str]) -> str:
    shortened, name = match.groups()
    shown = name.rpartition(".")[2] if shortened else name
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = re.sub(r"  # doctest: \+SKIP", "", _ROLE.sub(_link, text))
