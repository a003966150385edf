"""Line charts as SVG, without a plotting library: for reports and notebooks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from vireid_lightning.errors import VIReIDError

#: Colours that stay apart in print and for colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 200, 36, 44


@dataclass(frozen=True)
class LineChart:
    """A chart of several lines over one axis. Jupyter shows it where it is the last value of a cell.

    Attributes:
        title: Above the chart.
        series: (x, y) points of each line by its name.
        x_label: Below the axis.
        y_range: Lowest and highest value shown; None: those of the points.

    Raises:
        VIReIDError: There is no point to show.

    Example:
        >>> LineChart("v-measure", {"visible": [(0, 0.4), (1, 0.6)]}, y_range=(0, 1))._repr_svg_()[:4]
        '<svg'
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str = "epoch"
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not any(self.series.values()):
            raise VIReIDError(f"The chart '{self.title}' has no points; the run may not have logged these values.")

    def save(self, path: str | Path) -> None:
        """Write the chart as an SVG file, which browsers and word processors show."""
        Path(path).write_text(self._repr_svg_(), encoding="utf-8")

    def _repr_svg_(self) -> str:
        points = [point for line in self.series.values() for point in line]
        x_low, x_high = _widen(min(x for x, _ in points), max(x for x, _ in points))
        y_low, y_high = self.y_range or _widen(min(y for _, y in points), max(y for _, y in points))
        inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

        def place(x: float, y: float) -> tuple[float, float]:
            across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
            return round(_LEFT + across * inner_width, 1), round(_TOP + (1 - up) * inner_height, 1)

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'font-family="sans-serif" font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            _text(_LEFT, 20, self.title, weight="bold"),
            _text(_LEFT + inner_width / 2, _HEIGHT - 8, self.x_label, anchor="middle"),
        ]
        for step in range(5):
            y = y_low + (y_high - y_low) * step / 4
            left, height = place(x_low, y)
            parts.append(f'<path d="M{left} {height}h{inner_width}" stroke="#ddd"/>')
            parts.append(_text(left - 6, height + 4, f"{y:.3g}", anchor="end"))
            x = x_low + (x_high - x_low) * step / 4
            parts.append(_text(place(x, y_low)[0], _HEIGHT - _BOTTOM + 16, f"{x:.3g}", anchor="middle"))
        for number, (name, line) in enumerate(self.series.items()):
            colour = COLOURS[number % len(COLOURS)]
            places = [place(*point) for point in line]
            path = " ".join(f"{x},{y}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in places]
            parts.append(_text(_WIDTH - _RIGHT + 12, _TOP + 10 + 18 * number, name, colour=colour))
        return "".join([*parts, "</svg>"])


def read_metrics(path: str | Path, names: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """Return logged values by epoch from the ``metrics.csv`` of Lightning's CSVLogger.

    Args:
        path: The file, in the run's log folder.
        names: Logged names, such as ``target/v_measure``. A name that was never logged has no points.

    Raises:
        VIReIDError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise VIReIDError(f"There is no {path}; give the metrics.csv of a run whose logger is CSVLogger.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name)] for name in names}


def _widen(low: float, high: float) -> tuple[float, float]:
    """Give a range of no extent some."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(
    x: float, y: float, content: str, *, anchor: str = "start", colour: str = "#000", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{escape(content)}</text>'
    )
