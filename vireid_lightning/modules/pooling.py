"""From a map to one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import widen


class GlobalAveragePooling(nn.Module):
    """The mean over pixels: (B, C, H, W) to (B, C), float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the last two dimensions."""
        return widen(x).mean(dim=(-2, -1))


class GeM(nn.Module):
    """Generalised mean over pixels, (mean x^p + 1e-12)^(1/p) (Radenovic et al., TPAMI 2019).

    It expects maps behind a ReLU; values below 0, which other networks' last maps hold, count as 0. The 1e-12 keeps the
    gradient of a channel that is zero everywhere at 0. Computed in float32 at least, since cubes overflow float16.

    Args:
        p: The exponent, 1 being the average and infinity the maximum.
        learnable: Whether ``p`` is a parameter that starts at this value.
    """

    def __init__(self, p: float = 3.0, *, learnable: bool = False) -> None:
        super().__init__()
        if p <= 0:
            raise VIReIDError(f"GeM's exponent p is {p}; give a value above 0.")
        self.p: float | nn.Parameter = nn.Parameter(torch.tensor(float(p))) if learnable else float(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C) for a map (B, C, H, W)."""
        return (widen(x).clamp(min=0).pow(self.p).mean(dim=(-2, -1)) + 1e-12).pow(1.0 / self.p)
