"""Products of large float32 matrices, on the CPU by the library that multiplies them fastest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, without a gradient.

    On the CPU PyTorch hands products of float32 matrices to MKL, which on processors of AMD takes twice as long as
    oneDNN (``python tests/benchmarks/dense_contrastive.py`` compares the two). oneDNN is reached as a 1 x 1
    convolution: the rows of ``left`` are the pixels of one image, ``right`` is the filters. PyTorch hands a single
    image to oneDNN where it has more than one thread.

    Args:
        left: (M, K).
        right: (K, N).
    """
    by_onednn = left.device.type == "cpu" and left.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not by_onednn or torch.get_num_threads() == 1 or left.numel() == 0 or right.numel() == 0:
        return left @ right
    rows, inner = left.shape
    pixels = left.contiguous().view(1, rows, 1, inner).permute(0, 3, 1, 2)  # channels_last, as it lies in memory
    # The transposed convolution takes its filters as they are; the plain one would turn them over first.
    product: Tensor = F.conv_transpose2d(pixels, right.contiguous()[:, :, None, None])
    return product[0, :, :, 0].t()
