"""From a map to one vector per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.kinds import check_number
from vireid_lightning.precision import widen


class GlobalAveragePooling(nn.Module):
    """The mean over pixels: (B, C, H, W) to (B, C), float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the last two dimensions."""
        return widen(x).mean(dim=(-2, -1))


class GeM(nn.Module):
    """Generalised mean over pixels, (mean x^p + 1e-12)^(1/p) (Radenovic et al., TPAMI 2019).

    It is defined for maps behind a ReLU. The 1e-12 keeps the gradient of a channel that is zero everywhere at 0.
    Computed in float32 at least, since cubes overflow float16.

    Signed maps, such as those of transformers and ConvNeXt, have no such mean. Theirs is that of the values above 0
    minus that of the others' absolute values: the average for p = 1, the sum of maximum and minimum for infinity, for a
    map without negative values the mean above (less 1e-12^(1/p)), and with the opposite sign for the opposite map. A
    signed root of a signed mean would have an infinite gradient wherever values cancel out.

    Args:
        p: The exponent, above 0: 1 gives the average, large ones nearly the maximum.
        learnable: Whether ``p`` is a parameter that starts at this value.
        signed: Whether maps are signed. Without, values below 0 count as 0. The state dict of a signed one says so
            (``signs``); one that does not, as before there was a choice, is loaded as one that is not.
    """

    signs: Tensor

    def __init__(self, p: float = 3.0, *, learnable: bool = False, signed: bool = False) -> None:
        super().__init__()
        check_number("GeM's exponent p (gem_p of a method)", p, 0, above=True)
        self.p: float | nn.Parameter = nn.Parameter(torch.tensor(float(p))) if learnable else float(p)
        self.signed = False
        if signed:
            self.keep_signs()

    def keep_signs(self) -> None:
        """Pool signed maps from now on."""
        self.signed = True
        self.register_buffer("signs", torch.tensor(True))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C) for a map (B, C, H, W)."""
        x = widen(x)
        return self._mean(x) - self._mean(-x) if self.signed else self._mean(x)

    def _mean(self, x: Tensor) -> Tensor:
        return (x.clamp(min=0).pow(self.p).mean(dim=(-2, -1)) + 1e-12).pow(1.0 / self.p)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if self.signed and f"{prefix}signs" not in state_dict:
            self.signed = False
            del self.signs
        super()._load_from_state_dict(state_dict, prefix, *arguments)
