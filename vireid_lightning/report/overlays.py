"""What a method sees in a query and a gallery image, laid over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vireid_lightning.data.images.reading import read_image
from vireid_lightning.data.images.resizing import RESIZERS, resize_image
from vireid_lightning.data.loading import normalize
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.report.charts import PAPER, make_figure
from vireid_lightning.report.text import clean
from vireid_lightning.types import MODALITIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Share of an overlay's colours where a map is 1.
_OPACITY = 0.6


def measure_similarity(maps: Tensor) -> Tensor:
    """Return for each of two images how near each place of its map is to the other image as a whole.

    Args:
        maps: (2, C, h, w) maps of a query and a gallery image.

    Returns:
        (2, h, w) cosines, from -1 to 1, of the vector at each place with the mean over the other image's places.
    """
    maps = maps.float()
    other = functional.normalize(maps.mean(dim=(2, 3)), dim=1).flip(0)
    return torch.einsum("bchw,bc->bhw", functional.normalize(maps, dim=1), other)


@torch.no_grad()
def draw_overlays(
    method: ReIDModule, preprocessing: Mapping[str, Any], pair: Sequence[tuple[str | Path, int]]
) -> Figure:
    """Return a figure of a query, in the first row, and a gallery image, in the second.

    The columns are the image; the similarity of each place of the backbone's last map with the other image (see
    :func:`measure_similarity`); and the maps of the method's own
    :meth:`~vireid_lightning.methods.ReIDModule.list_overlays`. Colours go from the least to the greatest value that a
    map has in the two images.

    Args:
        method: The method, in eval mode.
        preprocessing: ``image_size`` and ``interpolation``, as the method's checkpoint holds them.
        pair: Path and modality of the query and of the gallery image.

    Raises:
        VIReIDError: A file is no image, or the checkpoint does not say how images are prepared.
    """
    size, interpolation = preprocessing.get("image_size"), preprocessing.get("interpolation")
    if size is None or interpolation not in RESIZERS:
        raise VIReIDError("The checkpoint does not say how its images are prepared; give one of a training run.")
    images = np.stack([resize_image(read_image(Path(path)), tuple(size), interpolation) for path, _ in pair])
    batch = normalize(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).to(method.device)
    modality = torch.tensor([number for _, number in pair], device=method.device)
    similarity = measure_similarity(method.backbone.features(batch, modality)[-1])
    columns = {"similarity": similarity}
    for name, maps in method.list_overlays(batch, modality).items():
        columns |= {f"{name} {number}": maps[:, number - 1] for number in range(1, maps.shape[1] + 1)}
    return _draw(images, {name: _stretch(value) for name, value in columns.items()}, pair)


def _stretch(maps: Tensor) -> Tensor:
    """Return maps of two images from 0, their least value, to 1, their greatest; 0 where all values are equal."""
    maps = maps.float().cpu()
    return (maps - maps.min()) / (maps.max() - maps.min()).clamp(min=1e-6)


def _draw(images: NDArray[np.uint8], columns: Mapping[str, Tensor], pair: Sequence[tuple[str | Path, int]]) -> Figure:
    figure = make_figure(PAPER, 0.8 * (1 + len(columns)), 3.5)
    figure.set_layout_engine("none")
    place = {"left": 0.01, "right": 0.99, "top": 0.93, "bottom": 0.06, "wspace": 0.08, "hspace": 0.16}
    grid = figure.subplots(2, 1 + len(columns), squeeze=False, gridspec_kw=place)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (axes_of_row, image, (path, modality)) in enumerate(zip(grid, images, pair)):
        axes_of_row[0].imshow(image)
        name = clean(Path(path).name).replace("$", r"\$")
        below = f"{('query', 'gallery')[row]}, {MODALITIES[modality]}\n{name[-24:]}"
        axes_of_row[0].text(0, -0.02, below, transform=axes_of_row[0].transAxes, va="top", fontsize=5)
        for axes, (title, maps) in zip(axes_of_row[1:], columns.items()):
            axes.imshow(lay_over(image, maps[row]))
            if row == 0:
                axes.set_title(title.replace(" ", "\n", 1) if len(title) > 12 else title, fontsize=6, pad=2)
    return figure


def lay_over(image: NDArray[np.uint8], values: Tensor) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in gray, coloured by a map (h, w) from 0 to 1 of any size: the more, the brighter."""
    from matplotlib import colormaps

    height, width = image.shape[:2]
    resized = functional.interpolate(values[None, None], (height, width), mode="bilinear")[0, 0].clamp(0, 1).numpy()
    colours = colormaps["inferno"](resized)[:, :, :3] * 255
    share = _OPACITY * resized[:, :, None]
    gray = image.mean(axis=2, keepdims=True)
    return np.asarray(np.rint((1 - share) * gray + share * colours), dtype=np.uint8)
