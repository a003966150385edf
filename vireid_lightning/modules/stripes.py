"""Horizontal stripes of images and maps: shuffled and put back, pooled, and the heads that learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number, check_sizes, check_whole


def shuffle_stripes(images: Tensor, order: Tensor) -> Tensor:
    """Rearrange the horizontal stripes of each image, on the images' device.

    Args:
        images: (B, C, H, W) of any type; the number of stripes d must divide H.
        order: (B, d) int64, each row a permutation of 0 to d - 1. Place i of result b shows stripe ``order[b, i]``.

    Returns:
        (B, C, H, W), channels last in memory. ``shuffle_stripes(result, invert_order(order))`` gives ``images`` back.

    Raises:
        VIReIDError: If d does not divide H.

    Example:
        >>> shuffle_stripes(torch.arange(3).view(1, 1, 3, 1), torch.tensor([[2, 0, 1]])).flatten().tolist()
        [2, 0, 1]
    """
    stripes = order.shape[1]
    require_stripes(images.shape[2], stripes)
    # With channels last, as the backbone runs, a stripe is one piece of memory and copying is three times as fast.
    pieces: Tensor = images.permute(0, 2, 3, 1).unflatten(1, (stripes, -1))
    shuffled = pieces[torch.arange(len(images), device=images.device).unsqueeze(1), order]
    return shuffled.flatten(1, 2).permute(0, 3, 1, 2)


def invert_order(order: Tensor) -> Tensor:
    """Return the orders (B, d) that undo ``order``."""
    return order.argsort(1)


def draw_orders(count: int, stripes: int, seed: Sequence[int]) -> Tensor:
    """Draw independent uniform permutations of the stripes; the draws follow from ``seed`` alone.

    Args:
        count: Number of orders.
        stripes: Number of stripes of an image.
        seed: Integers of at least 0, such as (seed, epoch, rank, step); another sequence gives other draws.

    Returns:
        (count, stripes) int64, on the CPU.
    """
    check_number("count", count, 0, whole=True)
    check_sizes(stripes=stripes)
    check_whole("seed", seed, 0)
    # PyTorch's generator takes one number; NumPy's seed sequence makes one of several, where a sum would collide.
    mixed = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(count, stripes, dtype=torch.float64, generator=generator).argsort(1)


def require_stripes(
    height: int, stripes: int, *, stride: int = 1, map_rows: Callable[[int], int] | None = None
) -> None:
    """Check that an image, and the map of a given stride, can be cut into equal stripes.

    Args:
        height: Height of the image in pixels.
        stripes: Number of stripes.
        stride: Stride of the map, which has ``height / stride`` rows, rounded up; 1 checks the image alone.
        map_rows: Function from a height to the rows of the map, where they are other than that.

    Raises:
        VIReIDError: If the stripes do not divide the rows; names the nearest heights that fit.
    """
    rows = -(-height // stride) if map_rows is None else map_rows(height)
    if height % stripes == 0 and rows % stripes == 0:
        return
    what = f"the {rows} rows of its map of stride {stride}" if height % stripes == 0 else "it"
    unit = stripes * stride
    below = max(height // unit, 1) * unit
    advice = f"a multiple of {unit}, such as {below} or {below + unit}"
    if map_rows is not None and (map_rows(below) % stripes or map_rows(below + unit) % stripes):
        fitting = [
            h for h in range(stripes, 4 * height + unit, stripes) if map_rows(h) > 0 and not map_rows(h) % stripes
        ]
        advice = " or ".join(str(h) for h in sorted(fitting, key=lambda h: abs(h - height))[:2]) or "another"
    raise VIReIDError(
        f"An image height of {height} does not fit {stripes} stripes, which do not divide {what}; set image_size to a "
        f"height that is {advice}."
    )


def pool_stripes(maps: Tensor, stripes: int) -> Tensor:
    """Average each horizontal stripe of feature maps.

    Args:
        maps: (B, C, H, W); ``stripes`` must divide H.
        stripes: Number of stripes.

    Returns:
        (B, C, stripes), the top stripe first.

    Raises:
        VIReIDError: If ``stripes`` does not divide H.
    """
    check_sizes(stripes=stripes)
    if maps.shape[2] % stripes:
        raise VIReIDError(
            f"A map of {maps.shape[2]} rows cannot be cut into {stripes} equal stripes; give images of another height."
        )
    pieces: Tensor = maps.unflatten(2, (stripes, -1))
    return pieces.mean((3, 4))


class PermutationHead(nn.Module):
    """Scores how well each stripe fits each place of a shuffled image (Wan et al., IEEE TIFS 2023).

    Global average pooling and one linear layer give the scores of "place i shows stripe s".

    Args:
        channels: Number of channels of the map.
        stripes: Number of stripes d.
    """

    def __init__(self, channels: int, stripes: int) -> None:
        super().__init__()
        check_sizes(channels=channels, stripes=stripes)
        self.stripes = stripes
        self.linear = nn.Linear(channels, stripes * stripes)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the scores (B, d, d) of maps (B, C, H, W)."""
        scores: Tensor = self.linear(maps.mean((2, 3))).unflatten(1, (self.stripes, self.stripes))
        return scores


class PartHead(nn.Module):
    """Turns a map into one feature for each stripe (Wan et al., IEEE TIFS 2023).

    Each stripe is averaged, projected by a 1x1 convolution and L2-normalised.

    Args:
        channels: Number of channels of the map.
        stripes: Number of stripes d.
        dimension: Length of a part feature.
    """

    def __init__(self, channels: int, stripes: int, dimension: int) -> None:
        super().__init__()
        check_sizes(channels=channels, stripes=stripes, dimension=dimension)
        self.stripes = stripes
        self.project = nn.Conv1d(channels, dimension, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the part features (B, d, dimension) float32 of maps (B, C, H, W)."""
        return F.normalize(self.project(pool_stripes(maps, self.stripes)).float(), dim=1).transpose(1, 2)
