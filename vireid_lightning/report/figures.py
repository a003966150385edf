"""The report's charts and rank lists as files for a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import atomic_write
from vireid_lightning.kinds import check_number
from vireid_lightning.report import charts
from vireid_lightning.report.charts import PAPER, Ink, make_figure, plain_style
from vireid_lightning.report.content import ReportContent
from vireid_lightning.report.rank_lists import LENGTH, ListedImage, RankListGroup
from vireid_lightning.report.requirements import require_packages
from vireid_lightning.report.thumbnails import read_picture, shrink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What can be drawn, in the order in which it is.
KINDS = ("cmc", "roc", "pairs", "map", "training", "ranks")

#: Formats of files.
FORMATS = ("pdf", "png", "svg")

#: Dots per inch at most: a figure is several inches wide, and more would fill the memory.
_MOST_DPI = 2400

#: Height in pixels of the images of a rank list, width as one half of it.
_HEIGHT = 192

#: No time of writing and no program's version, so that the same content gives the same file.
_METADATA: Mapping[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}


def write_figures(
    folder: str | Path,
    content: ReportContent,
    *,
    kinds: Sequence[str] = KINDS,
    formats: Sequence[str] = ("pdf", "png"),
    dpi: int = 300,
    overwrite: bool = False,
) -> list[Path]:
    """Write a file in each format for each kind of figure that there is something to draw for; return their paths.

    Args:
        folder: Where they go; made where it is missing.
        content: What they show.
        kinds: Which of :data:`KINDS` are drawn.
        formats: Which of :data:`FORMATS` are written.
        dpi: Dots per inch of PNG files and of the images in the others.
        overwrite: Whether files that are there are replaced.

    Raises:
        VIReIDError: For an unknown kind or format, a file that is there, or if Matplotlib is missing.
    """
    require_packages("matplotlib")
    for what, given, known in (("figure", kinds, KINDS), ("format", formats, FORMATS)):
        for name in given:
            if name not in known:
                raise VIReIDError(f"There is no {what} '{name}'; choose from {', '.join(known)}.")
    check_number("dpi", dpi, 30, _MOST_DPI, whole=True)
    drawers = {name: draw for name, draw in list_drawers(content) if name.split("_")[0] in kinds}
    paths = {(name, suffix): Path(folder) / f"{name}.{suffix}" for name in drawers for suffix in formats}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise VIReIDError(f"{path} exists; give --overwrite to replace it, or another --output.")
    with plain_style():
        for name, draw in drawers.items():
            figure = draw(PAPER)
            for suffix in formats:
                with atomic_write(paths[name, suffix]) as file:
                    figure.savefig(file, format=suffix, dpi=dpi, metadata=_METADATA[suffix])
    return list(paths.values())


def list_drawers(content: ReportContent) -> Iterator[tuple[str, Callable[[Ink], Figure]]]:
    """Yield the figures that there is something to draw for: name and what draws it in the colours that it is given.

    To be drawn within :func:`~vireid_lightning.report.charts.plain_style`.
    """
    yield "cmc", lambda ink: charts.draw_cmc(content.table.rows, ink)
    yield "roc", lambda ink: charts.draw_roc(content.rates, ink)
    if content.histograms:
        distance = content.table.rows[0].distance
        yield "pairs", lambda ink: charts.draw_histograms(content.histograms, ink, distance)
    if (plane := content.map) is not None:
        yield "map", lambda ink: charts.draw_map(plane, ink, content.names)
    if (curves := content.training) is not None:
        yield "training", lambda ink: charts.draw_training(curves, ink)
    for group in content.groups:
        name = f"ranks_{group.direction.replace(' ', '-')}"
        yield name, lambda ink, group=group: draw_rank_lists(group, content, ink)  # type: ignore[misc]


def draw_rank_lists(group: RankListGroup, content: ReportContent, ink: Ink, *, most: int = 20) -> Figure:
    """Return rank lists as rows: the query, then the nearest images, framed by whether they are true matches.

    Args:
        group: The lists.
        content: Where the images are.
        ink: The colours.
        most: Number of lists that are drawn.
    """
    from matplotlib.patches import Rectangle

    lists = group.lists[:most]
    columns = 1 + max((len(item.images) for item in lists), default=LENGTH)
    rows = max(1, len(lists))
    figure = make_figure(ink, 0.62 * columns, 1.5 * rows)
    figure.set_layout_engine("none")  # measuring every letter of so many small axes takes seconds
    place = {
        "left": 0.006,
        "right": 0.994,
        "top": 1 - 0.13 / rows,
        "bottom": 0.2 / rows,
        "wspace": 0.12,
        "hspace": 0.32,
    }
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=place)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, item in zip(grid, lists):
        for rank, (axes, image) in enumerate(zip(row, (item.query, *item.images))):
            _show(axes, image, content, ink)
            colour = ink.text if image.is_true is None else ink.series[2] if image.is_true else ink.false
            style = "-" if image.is_true is not False else (0, (2.5, 1.5))
            frame = Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=colour, linewidth=1.8, linestyle=style,
                clip_on=False,
            )  # fmt: skip
            axes.add_patch(frame)
            heading = "query" if rank == 0 else str(rank)
            below = f"cam {image.camera}" if image.camera else ""
            if image.distance is not None:
                below = f"{image.distance:.3f}\n{below}"
            axes.set_title(heading, fontsize=6.5, pad=2.5, color=ink.text)
            axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=5.5, color=ink.text)
    return figure


def _show(axes: Axes, image: ListedImage, content: ReportContent, ink: Ink) -> None:
    """Draw an image, or a field that says that it is missing."""
    picture = None
    if content.root is not None and content.embeddings.path is not None:
        picture = read_picture(content.root, content.embeddings.path[image.position], outside=content.outside)
    if picture is None:
        picture = np.full((_HEIGHT, _HEIGHT // 2, 3), 224, dtype=np.uint8)
        axes.text(0.5, 0.5, "no image", transform=axes.transAxes, ha="center", fontsize=5.5, color=ink.text)
    else:
        picture = shrink(picture, _HEIGHT)
    axes.imshow(picture, aspect="auto" if picture.shape[0] < 3 * picture.shape[1] else "equal")
    axes.set_box_aspect(2)
