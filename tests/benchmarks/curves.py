"""Draw the loss terms by epoch that tables of docs/figures hold: a row of panels for each method, one for each term.

A line is the mean over the seeds of the whole method or of the method without a part. The picture names the values that
it was drawn from by their hash, so that tests/test_evidence.py finds one that is older than its table.

Run: python tests/benchmarks/curves.py    (writes docs/figures/NAME-curves.svg; needs the extra report)
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, read_tables

Curves = Mapping[str, Mapping[str, list[float]]]


def digest(curves: Curves) -> str:
    """Return the hash of curves that their picture names."""
    return hashlib.sha256(json.dumps(curves, sort_keys=True).encode()).hexdigest()[:16]


def group(curves: Curves) -> dict[str, list[str]]:
    """Return the rows by method; a row that is not a method begins with the name of its own."""
    names = list(curves)
    methods = [name for name in names if not any(name != other and name.startswith(other) for other in names)]
    return {method: [name for name in names if name.startswith(method)] for method in methods}


def terms(curves: Curves, names: list[str]) -> list[str]:
    """Return the loss terms of some rows, without those that are 0 throughout."""
    found = dict.fromkeys(term for name in names for term in curves[name])
    return [term for term in found if any(any(curves[name].get(term, ())) for name in names)]


def draw(table: Mapping[str, Any], path: Path) -> None:
    """Write the curves of a table as an SVG picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    curves: Curves = table["curves"]
    rows = group(curves)
    columns = max(len(terms(curves, names)) for names in rows.values()) + 1  # one more for the legends
    style: Any = {"svg.hashsalt": table["name"], "svg.fonttype": "none", "font.size": 7, "axes.titlesize": 7}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(
            len(rows), columns, figsize=(1.7 * columns, 1.9 * len(rows)), squeeze=False, layout="constrained"
        )
        for line, (method, names) in zip(axes, rows.items(), strict=True):
            for axis, term in zip(line, terms(curves, names)):
                for number, name in enumerate(names):
                    values = curves[name].get(term, [])
                    if any(values):
                        dash = "-" if name == method else ("--", "-.", ":")[number % 3]
                        axis.plot(range(1, len(values) + 1), values, dash, color=f"C{number}", label=name, linewidth=1)
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.yaxis.set_minor_locator(NullLocator())
                axis.set_xticks([1, len(values) // 2, len(values)])
                axis.set_title(f"{method}: {term}")
            for axis in line[len(terms(curves, names)) :]:
                axis.axis("off")
            place, handles = line[len(terms(curves, names))], line[0].get_legend_handles_labels()
            place.legend(*handles, fontsize=6, frameon=False, loc="upper left").set_in_layout(False)
        figure.supxlabel("epoch", fontsize=7)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Description": digest(curves)})
        pyplot.close(figure)


if __name__ == "__main__":
    for name, table in read_tables().items():
        if "curves" in table:
            draw(table, FIGURES / f"{name}-curves.svg")
