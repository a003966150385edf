"""Time of a training step of a backbone under bfloat16 autocast against float32, on the processor, in turns.

On an x86 processor without AVX-512, PyTorch has no fast bfloat16: its ``bf16-mixed`` is for others.

Run: python tests/benchmarks/bfloat16_speed.py [--backbone resnet10t] [--images 16] [--height 128] [--rounds 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.precision import emulates_bfloat16


def measure(backbone: str, images: int, height: int, rounds: int) -> float:
    """Print the seconds of a step of each precision, and return how many times as long bfloat16 takes."""
    torch.manual_seed(0)
    model = timm.create_model(backbone, num_classes=10)
    batch = torch.randn(images, 3, height, height // 2)

    def step(half: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(batch).float().square().mean()
        loss.backward()
        return time.perf_counter() - start

    pairs = [(step(True), step(False)) for _ in range(rounds + 1)][1:]
    bfloat16, float32 = (statistics.median(times) for times in zip(*pairs))
    ratio = statistics.median(slow / fast for slow, fast in pairs)
    emulated = "emulates bfloat16" if emulates_bfloat16(torch.device("cpu")) else "has a fast bfloat16"
    print(
        f"{backbone}, {images} images of {height} x {height // 2}: float32 {float32:.2f} s, bfloat16 {bfloat16:.2f} s, "
        f"{ratio:.1f} times as long; this processor {emulated}"
    )
    return ratio


def main(words: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet10t", help="name in timm")
    parser.add_argument("--images", type=int, default=16, help="images of a step")
    parser.add_argument("--height", type=int, default=128, help="of the images, in pixels; they are half as wide")
    parser.add_argument("--rounds", type=int, default=2, help="steps of each, after one that is not counted")
    options = parser.parse_args(words)
    return measure(options.backbone, options.images, options.height, options.rounds)


@pytest.mark.benchmark
def test_both_precisions_are_measured():
    assert main(["--backbone", "test_resnet", "--images", "2", "--height", "64", "--rounds", "1"]) > 0


if __name__ == "__main__":
    main()
