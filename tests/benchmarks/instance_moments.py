"""Time of the instance norm's moments against PyTorch's ``var_mean``, forward and backward, on the same map.

Run by hand: python tests/benchmarks/instance_moments.py [--batch 32] [--channels 2048] [--size 24 8] [--rounds 20]; one
process in which both take turns. Besides the times it prints by how much the gradients differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.modules.modality_alleviation import _Moments
from vireid_lightning.precision import widen


def by_var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what PyTorch computes."""
    variance, mean = torch.var_mean(widen(x), dim=(2, 3), correction=0, keepdim=True)
    return variance, mean


def step(moments: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, weights: Tensor) -> tuple[float, Tensor]:
    """Return the seconds of forward and backward, and the map's gradient."""
    leaf = x.detach().requires_grad_()
    start = time.perf_counter()
    variance, mean = moments(leaf)
    (weights[0] * variance + weights[1] * mean).sum().backward()
    seconds = time.perf_counter() - start
    assert leaf.grad is not None
    return seconds, leaf.grad


def compare(shape: tuple[int, int, int, int], rounds: int, dtype: torch.dtype) -> float:
    """Print how many times as long ``var_mean`` takes, and return by how much the gradients differ."""
    keep_freed_memory()  # as in training
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    weights = torch.randn(2, *shape[:2], 1, 1, generator=generator)
    pairs = [(step(by_var_mean, x, weights)[0], step(_Moments.apply, x, weights)[0]) for _ in range(rounds + 3)][3:]
    theirs, ours = (statistics.median(times) for times in zip(*pairs))
    ratio = statistics.median(slow / fast for slow, fast in pairs)
    expected, found = (step(moments, x, weights)[1].float() for moments in (by_var_mean, _Moments.apply))
    apart = float((found - expected).abs().max() / expected.abs().max())
    print(
        f"{tuple(shape)} {str(dtype).removeprefix('torch.')}: var_mean {1e3 * theirs:.1f} ms, moments "
        f"{1e3 * ours:.1f} ms, {ratio:.1f} times; gradients differ by {apart:.0e} of the largest"
    )
    return apart


@pytest.mark.benchmark
def test_both_have_the_same_gradient():
    # A few roundings of values of about the gradient's size.
    assert compare((4, 64, 6, 4), 2, torch.float32) < 16 * torch.finfo(torch.float32).eps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--size", type=int, nargs=2, default=[24, 8])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    for kind in (torch.float32, torch.bfloat16):
        compare((options.batch, options.channels, *options.size), options.rounds, kind)
