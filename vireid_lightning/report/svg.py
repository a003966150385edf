"""Matplotlib's charts as SVG that stands in a page: no fixed size, names of its own, colours that follow the theme."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from vireid_lightning.report.charts import PAPER, Ink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours that stand for the page's own, by the CSS variable that takes their place.
_VARIABLES = {
    "#010203": "--ink",
    "#010204": "--line",
    **{f"#0102{number:02x}": f"--series-{number - 16}" for number in range(16, 16 + len(PAPER.series))},
}
_COLOURS = {variable: colour for colour, variable in _VARIABLES.items()}

#: The colours of a page, light or dark.
PAGE = Ink(
    _COLOURS["--ink"],
    _COLOURS["--line"],
    "none",
    tuple(_COLOURS[f"--series-{number}"] for number in range(len(PAPER.series))),
    _COLOURS["--series-0"],
    _COLOURS["--series-1"],
)


def embed_svg(figure: Figure, name: str) -> str:
    """Return a figure as an ``<svg>`` element.

    Args:
        figure: A figure in the colours of :data:`PAGE`.
        name: Begins the names of the element's parts, so that several figures in a page do not share them.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Attributes alone, never the text of a label: that has its < and " escaped.
    text = re.sub(r'(\s)id="([^"]+)"', rf'\1id="{name}-\2"', text)
    text = re.sub(r'((?:xlink:)?href=")#', rf"\1#{name}-", text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var({variable})")
    return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
