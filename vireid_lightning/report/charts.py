"""The charts of reports and figures, drawn by Matplotlib in the colours of a page or of a paper."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid_lightning.metrics.scores import ProtocolScores
from vireid_lightning.report.embedding_map import EmbeddingMap
from vireid_lightning.report.pairs import ErrorRates, PairHistogram
from vireid_lightning.report.text import clean
from vireid_lightning.report.training_curves import Points, TrainingCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Ranks that a CMC curve shows.
RANKS = 50

#: Curves of a chart, at most: more have no colours of their own.
CURVES = 8

#: False positive rates below this are left out of a curve.
_LOWEST_RATE = 1e-5

_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Ink:
    """Colours of a chart.

    Attributes:
        text: Of letters and axes.
        grid: Of the lines behind the curves.
        paper: Behind everything.
        series: Of the curves, in their order; told apart also by how they are dashed.
        true: Of true pairs.
        false: Of false pairs.
    """

    text: str
    grid: str
    paper: str
    series: tuple[str, ...]
    true: str
    false: str


#: Colours that are told apart by readers with any colour vision, and in print.
PAPER = Ink(
    "#1b1f24", "#d9dde2", "#ffffff",
    ("#0b62a4", "#c4501b", "#23805a", "#8a4fa3", "#8a6d00", "#0f7f8c", "#a83260", "#59616b"),
    "#0b62a4", "#c4501b",
)  # fmt: skip


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw with one style, whatever the user's own is, and the same bytes each time."""
    import matplotlib

    settings: dict[str, Any] = {
        "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8.5, "axes.linewidth": 0.6,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 7.5,
        "lines.linewidth": 1.4, "svg.fonttype": "none", "svg.hashsalt": "vireid", "pdf.fonttype": 42,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)  # type: ignore[arg-type]  # it lists all names that there are
        yield


def make_figure(ink: Ink, width: float = 4.4, height: float = 3.0) -> Figure:
    """Return an empty figure, in inches, that no window shows."""
    from matplotlib.figure import Figure

    return Figure((width, height), facecolor=ink.paper, layout="constrained")


def draw_cmc(rows: Sequence[ProtocolScores], ink: Ink) -> Figure:
    """Return the CMC curves of protocols, each the mean over its trials."""
    figure = make_figure(ink)
    axes = _prepare(figure.add_subplot(), ink, "Rank", "Queries with a true match by that rank (%)")
    length = min(RANKS, max(len(trial.cmc()) for row in rows for trial in row.trials))
    for number, row in enumerate(rows[:CURVES]):
        curves = [trial.cmc()[:length] for trial in row.trials]
        padded = [np.append(curve, np.full(length - len(curve), 100.0)) for curve in curves]
        line = np.mean(padded, axis=0)
        axes.plot(np.arange(1, length + 1), line, label=_plain(row.name), **_stroke(number, ink))
    axes.set_xlim(1, max(2, length))
    axes.set_ylim(top=101)
    _legend(axes, ink, loc="lower right")
    return figure


def draw_histograms(histograms: Sequence[PairHistogram], ink: Ink, distance: str) -> Figure:
    """Return the distances of true and false pairs, a panel for each pair of modalities."""
    figure = make_figure(ink, 4.4, 0.6 + 1.35 * len(histograms))
    panels = figure.subplots(len(histograms), 1, sharex=True, squeeze=False)[:, 0]
    for axes, item in zip(panels, histograms):
        _prepare(axes, ink, "", "Share of pairs")
        axes.set_title(item.name.capitalize(), loc="left", color=ink.text)
        for name, shares, pairs, colour, style in (
            ("true pairs", item.true, item.true_pairs, ink.true, "-"),
            ("false pairs", item.false, item.false_pairs, ink.false, "--"),
        ):
            if pairs:
                label = f"{pairs:,} {name}"
                axes.stairs(shares, item.edges, fill=True, color=colour, alpha=0.22)
                axes.stairs(shares, item.edges, color=colour, linestyle=style, linewidth=1.2, label=label)
        axes.set_ylim(0, 1.4 * max(item.true.max(), item.false.max()))  # the legend stands above
        axes.set_xlim(item.edges[0], item.edges[-1])
        _legend(axes, ink, loc="upper left", ncols=2)
    panels[-1].set_xlabel(f"{distance.capitalize()} distance", color=ink.text)
    return figure


def draw_roc(rates: Sequence[ErrorRates], ink: Ink) -> Figure:
    """Return the true positive rate over the false positive rate, the mean over trials."""
    figure = make_figure(ink)
    axes = _prepare(figure.add_subplot(), ink, "False positive rate", "True positive rate (%)")
    for number, item in enumerate(rates[:CURVES]):
        # A step: between two thresholds, the lower one decides.
        axes.plot(
            np.maximum(item.false_positive, _LOWEST_RATE), 100 * item.true_positive, drawstyle="steps-post",
            label=_plain(item.protocol), **_stroke(number, ink),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(_LOWEST_RATE, 1)
    axes.set_ylim(0, 101)
    _legend(axes, ink, loc="upper left")
    return figure


def draw_map(plane: EmbeddingMap, ink: Ink, names: Mapping[int, str]) -> Figure:
    """Return the map: a colour and a label for each identity, a mark for each modality."""
    figure = make_figure(ink, 4.4, 4.0)
    axes = _prepare(figure.add_subplot(), ink, "", "")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    identities = np.unique(plane.identity)
    for number, identity in enumerate(identities.tolist()):
        own = plane.identity == identity
        colour = _identity_colour(number, len(identities))
        for side, mark, size in ((0, "o", 13), (1, "^", 16)):
            points = plane.point[own & (plane.modality == side)]
            axes.scatter(points[:, 0], points[:, 1], s=size, marker=mark, color=colour, alpha=0.85, linewidths=0)
        # Visible and infrared images may lie far apart: the label stands at one group, not between them.
        side = plane.modality[own].min()
        middle = np.median(plane.point[own & (plane.modality == side)], axis=0)
        name = clean(names.get(identity, identity))
        label = _plain(name if len(name) < 16 else f"{name[:13]}...")
        axes.annotate(
            label, middle, xytext=(0, 6), textcoords="offset points", color=ink.text, fontsize=6.5, ha="center"
        )
    for mark, label in (("o", "visible"), ("^", "infrared")):
        axes.scatter([], [], s=16, marker=mark, color=ink.text, label=label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, labelcolor=ink.text)
    return figure


def draw_training(curves: TrainingCurves, ink: Ink) -> Figure:
    """Return losses, scores of validations and learning rates over the steps of training."""
    panels = [
        ("Loss terms, means over an epoch", curves.losses or curves.steps, curves.steps, True),
        ("Validation (%)", curves.scores, {}, False),
        ("Learning rate", curves.rates, {}, False),
    ]
    panels = [panel for panel in panels if panel[1]]
    figure = make_figure(ink, 4.4, 0.5 + 1.6 * len(panels))
    for axes, (title, series, behind, is_log) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels
    ):
        _prepare(axes, ink, "", "")
        axes.set_title(title, loc="left", color=ink.text)
        values = [value for points in series.values() for _, value in points]
        if is_log and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        for number, (name, points) in enumerate(list(series.items())[:CURVES]):
            stroke = _stroke(number, ink)
            if series is not behind and name in behind:
                _plot(axes, behind[name], {**stroke, "alpha": 0.3, "linewidth": 0.7})
            _plot(axes, points, {**stroke, "label": _plain(name), "marker": "o" if len(points) < 20 else None})
        _legend(axes, ink, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.axes[-1].set_xlabel("Step", color=ink.text)
    return figure


def _plot(axes: Axes, points: Points, stroke: Mapping[str, Any]) -> None:
    steps, values = zip(*points)
    axes.plot(steps, values, markersize=2.5, **stroke)


def _stroke(number: int, ink: Ink) -> dict[str, Any]:
    return {"color": ink.series[number % len(ink.series)], "linestyle": _DASHES[number % len(_DASHES)]}


def _identity_colour(number: int, count: int) -> tuple[float, float, float]:
    """Return a colour of middling lightness, which shows on white and on black; neighbours differ in lightness too."""
    return colorsys.hls_to_rgb(number / max(1, count), (0.42, 0.56)[number % 2], 0.62)


def _prepare(axes: Axes, ink: Ink, horizontal: str, vertical: str) -> Axes:
    axes.set_facecolor("none")
    axes.grid(True, color=ink.grid, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink.text, width=0.6, length=2.5)
    axes.tick_params(which="minor", colors=ink.grid, length=1.5)
    for spine in axes.spines.values():
        spine.set_color(ink.grid)
    axes.set_xlabel(horizontal, color=ink.text)
    axes.set_ylabel(vertical, color=ink.text)
    return axes


def _legend(axes: Axes, ink: Ink, **place: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(labelcolor=ink.text, **place)


def _plain(value: object) -> str:
    """Return a text that Matplotlib takes for no formula."""
    text = clean(value).replace("$", r"\$")
    return text if not text.startswith("_") else f" {text}"  # what begins so is in no legend
