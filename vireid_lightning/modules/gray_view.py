"""The gray view of an image: one of its channels in place of all three."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vireid_lightning.kinds import check_number, check_whole
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

#: The channel that a view keeps where none is given: green is nearest to the luminance.
GREEN = 1


class GrayView(nn.Module):
    """Turns normalised images into normalised gray ones that keep one channel's pixel values.

    An infrared image, whose channels are equal, stays as it is. Where an image has a copy that was translated to
    infrared, the view is a mixture of that copy and the gray image (Wu et al., TCSVT 2024).

    Args:
        fake_share: Share of the translated copy in the view, from 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, fake_share: float = 0.2) -> None:
        super().__init__()
        check_number("fake_share", fake_share, 0, 1)
        self.fake_share = fake_share
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        channel: Tensor | None = None,
        *,
        fake_infrared: Tensor | None = None,
        erased: Tensor | None = None,
    ) -> Tensor:
        """Return the gray views.

        Args:
            images: (B, 3, H, W) float, normalised with the mean and standard deviation of ImageNet.
            channel: (B,) int64 of 0 to 2, the channel that each view keeps; None keeps green.
            fake_infrared: (B, 3, H, W), copies translated to infrared and normalised likewise, or None.
            erased: (B, H, W) bool, erased pixels, which stay exactly 0, or None.

        Returns:
            (B, 3, H, W) in the images' dtype.
        """
        if channel is None:
            channel = torch.full((images.shape[0],), GREEN, device=images.device)
        kept = images.gather(1, channel.view(-1, 1, 1, 1).expand(-1, 1, *images.shape[2:]))
        pixels = kept * self.std.flatten()[channel].view(-1, 1, 1, 1) + self.mean.flatten()[channel].view(-1, 1, 1, 1)
        view = ((pixels - self.mean) / self.std).to(images.dtype)
        if fake_infrared is not None:
            view = self.fake_share * fake_infrared + (1 - self.fake_share) * view
        return view if erased is None else view.masked_fill(erased.unsqueeze(1), 0)


def draw_channels(count: int, seed: Sequence[int]) -> Tensor:
    """Draw a channel for each image; the draws follow from ``seed`` alone.

    Args:
        count: Number of images.
        seed: Integers of at least 0, such as (seed, epoch, rank, step).

    Returns:
        (count,) int64 of 0 to 2, on the CPU.
    """
    check_number("count", count, 0, whole=True)
    check_whole("seed", seed, 0)
    return torch.from_numpy(np.random.default_rng(list(seed)).integers(3, size=count))
