"""Batch normalisation over the images of all processes, also on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import widen


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; what each process makes of it reaches every process's gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        total = grad_output.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total


class SyncedBatchNorm(nn.Module):
    """A batch normalisation whose statistics are those of the images of all processes together.

    It does on any device what :class:`torch.nn.SyncBatchNorm` does on a GPU, and shares parameters and buffers, names
    in the state dict included, with the layer that it stands in for. Processes may have different numbers of images.

    Args:
        norm: The layer it stands in for; timm's, which drops and activates behind the normalisation, keep that.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.drop, self.act = (getattr(norm, name, None) for name in ("drop", "act"))
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised input (B, C, ...) in its shape and dtype."""
        wide = widen(x)
        shape = (1, -1, *([1] * (x.ndim - 2)))
        if self.running_mean is None or self.running_var is None or self.training:
            mean, variance = self._measure(wide, shape)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        result = (wide - mean.view(shape)) * scale.view(shape)
        if self.bias is not None:
            result = result + self.bias.view(shape)
        result = result.to(x.dtype)
        for behind in (self.drop, self.act):
            result = result if behind is None else behind(result)
        return result

    def _measure(self, wide: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each channel, of all processes in training, and move the running ones."""
        # In evaluation, processes may have different numbers of batches and never wait for each other.
        add_up = _SumOverProcesses.apply if self.training else torch.clone
        dims = [dim for dim in range(wide.ndim) if dim != 1]
        total = add_up(torch.cat([wide.sum(dims), wide.new_full((1,), wide.numel() / wide.shape[1])]))
        count = total[-1].detach()
        mean = total[:-1] / count
        # Around the mean rather than from the sum of squares, whose difference to the squared mean would lose digits.
        variance = add_up((wide - mean.view(shape)).square().sum(dims)) / count
        if self.training and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                self.running_var.lerp_(unbiased.to(self.running_var), share)
        return mean, variance


class BatchNormSync(LayerSync):
    """What ``trainer.sync_batchnorm`` does to a method: torch's own on a GPU, :class:`SyncedBatchNorm` on the CPU.

    Lightning's would drop the activations that timm has within its normalisations, does not run on the CPU, and
    leaves layers of another class behind. Here every layer is as before when training ends.

    Args:
        device: Where the model will be.

    Raises:
        VIReIDError: If batch normalisations cannot be synchronised there.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type not in ("cuda", "cpu"):
            raise VIReIDError(
                f"trainer.sync_batchnorm works on GPUs and on the CPU, not on {device.type}; leave it out, and batch "
                "normalisation runs over the images of each process."
            )
        self._on_gpu = device.type == "cuda"
        self._former: list[tuple[nn.Module, str, _BatchNorm]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Put a synchronised layer into the place of every batch normalisation of a model; return the model."""
        synchronise = convert_sync_batchnorm if self._on_gpu else SyncedBatchNorm
        self._former = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm)
        ]
        for parent, name, norm in self._former:
            setattr(parent, name, synchronise(norm))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the layers back, with what they learned; return the model."""
        for parent, name, norm in self._former:
            synced = getattr(parent, name)
            norm._parameters, norm._buffers = synced._parameters, synced._buffers
            norm.train(synced.training)
            setattr(parent, name, norm)
        self._former = []
        return model
