"""One way for a report's figures and rank lists to every logger that takes images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray

from vireid_lightning.report.charts import PAPER, plain_style
from vireid_lightning.report.content import ReportContent
from vireid_lightning.report.figures import list_drawers
from vireid_lightning.report.rank_lists import LENGTH, ListedImage, RankList, RankListGroup
from vireid_lightning.report.requirements import require_packages
from vireid_lightning.report.thumbnails import HEIGHT, read_picture, shrink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Dots per inch of the figures.
_DPI = 130

#: Columns of a table of rank lists.
COLUMNS = [
    "path", "identity", "camera", "average precision", "first true match", "skipped", "query",
    *(f"rank {rank}" for rank in range(1, LENGTH + 1)),
]  # fmt: skip


def log_report(loggers: Iterable[Logger], content: ReportContent, step: int, *, prefix: str = "test") -> int:
    """Log each figure as an image, and to W&B the rank lists also as tables; return the number of loggers that took it.

    Loggers that take no images, such as the CSVLogger, are passed over.

    Args:
        loggers: The trainer's loggers.
        content: What is logged.
        step: Step of training that it is logged at.
        prefix: Begins the names, as in ``test/cmc``.
    """
    taking = [logger for logger in loggers if isinstance(logger, (WandbLogger, TensorBoardLogger))]
    if not taking:
        return 0
    require_packages("matplotlib")
    with plain_style():
        for name, draw in list_drawers(content):
            pixels = _to_pixels(draw(PAPER))
            for logger in taking:
                if isinstance(logger, WandbLogger):
                    logger.log_image(f"{prefix}/{name}", [pixels])
                else:
                    logger.experiment.add_image(f"{prefix}/{name}", pixels, step, dataformats="HWC")
    for logger in taking:
        if isinstance(logger, WandbLogger):
            for group in content.groups:
                name = f"{prefix}/rank_lists_{group.direction.replace(' ', '-')}"
                logger.log_table(name, columns=COLUMNS, data=_list_rows(group, content))
    return len(taking)


def _to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as an image (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.array(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    return pixels[:, :, :3]


def _list_rows(group: RankListGroup, content: ReportContent) -> list[list[Any]]:
    """Return the rows of W&B's table of rank lists."""
    return [_list_cells(item, content) for item in group.lists]


def _list_cells(item: RankList, content: ReportContent) -> list[Any]:
    query = item.query
    images = [_picture(image, content) for image in (query, *item.images)]
    images += [None] * (1 + LENGTH - len(images))
    return [
        query.path, query.identity, query.camera, item.average_precision, item.first, item.removed, *images
    ]  # fmt: skip


def _picture(image: ListedImage, content: ReportContent) -> Any:
    """Return an image for W&B with what the page says below it; None where it is missing on disk."""
    import wandb

    if content.root is None or content.embeddings.path is None:
        return None
    picture = read_picture(content.root, content.embeddings.path[image.position], outside=content.outside)
    if picture is None:
        return None
    words = [f"identity {image.identity}", f"camera {image.camera}" if image.camera else ""]
    if image.distance is not None:
        words = ["true match" if image.is_true else "other identity", f"{image.distance:.3f}", *words]
    return wandb.Image(shrink(picture, HEIGHT), caption=", ".join(filter(None, words)))
