"""From a map to one vector per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vireid_lightning.kinds import check_number
from vireid_lightning.precision import widen


class GlobalAveragePooling(nn.Module):
    """The mean over pixels: (B, C, H, W) to (B, C), float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the last two dimensions."""
        return widen(x).mean(dim=(-2, -1))


def _mean_power(x: Tensor, p: Tensor | float) -> Tensor:
    return x.clamp(min=0).pow(p).mean(dim=(-2, -1))


class _PowerMean(torch.autograd.Function):
    """:func:`_mean_power` with a backward pass that reads the map less often than PyTorch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: Tensor | float) -> Tensor:
        powers = x.clamp(min=0).pow(p)
        learned = isinstance(p, Tensor) and p.requires_grad
        ctx.p = p.detach() if isinstance(p, Tensor) else p
        ctx.save_for_backward(x, *([powers] if learned else []))
        return powers.mean(dim=(-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, *powers = ctx.saved_tensors
        positive = x.clamp(min=0)
        # The derivative of x^p with respect to p is x^p log x, which tends to 0 with x.
        of_p = (torch.special.xlogy(powers[0], positive).mean(dim=(-2, -1)) * grad).sum() if powers else None
        scale = grad[..., None, None] * (ctx.p / x[0, 0].numel())
        of_x = positive.pow(ctx.p - 1).mul_(scale).masked_fill_(x <= 0, 0)
        return of_x, of_p


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
        mean = _PowerMean.apply if torch.is_grad_enabled() and x.requires_grad else _mean_power
        return (mean(x, self.p) + 1e-12).pow(1.0 / self.p)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if self.signed and f"{prefix}signs" not in state_dict:
            self.signed = False
            del self.signs
        super()._load_from_state_dict(state_dict, prefix, *arguments)
