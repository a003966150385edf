"""Float32 arithmetic for losses and the like, whatever the precision of the Trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import torch
from torch import Tensor

_P = ParamSpec("_P")


def widen(tensor: Tensor) -> Tensor:
    """Return a float16 or bfloat16 tensor as float32, any other as it is.

    Example:
        >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype, widen(torch.zeros(2, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def in_float32(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Make a function of tensors run outside autocast, with half-precision arguments widened to float32.

    Float64 arguments stay float64. The first tensor among the arguments decides the device.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        device = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)).device
        with torch.autocast(device.type, enabled=False):
            return function(*map(_widen_any, args), **{name: _widen_any(value) for name, value in kwargs.items()})

    return wrapped


def emulates_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 is far slower than float32 on a device: on an x86 processor without AVX-512.

    PyTorch's library for processors, oneDNN, takes no bfloat16 there, and what PyTorch does instead is some 30 times as
    slow as float32 (``python tests/benchmarks/bfloat16_speed.py``).
    """
    known = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute matrix products in full float32: no autocast, no TF32, no gradients."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _widen_any(value: Any) -> Any:
    return widen(value) if isinstance(value, Tensor) else value
