"""What a pre-training step of MMGL costs beside the bare backbone's forward and backward pass.

Same batch, precision and memory format; the two are measured in turn, so that what else the machine does hits both.
Then the share of the step that part-aware cycle-contrastive learning takes, forward and backward, at the batch's number
of parts (2 x 192 for 32 + 32 images), and that of permutation recovery.

Run by hand: python tests/benchmarks/mmgl_step.py [--backbone resnet50] [--images 32] [--repeats 5] [--precision bf16]
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.losses import cycle_contrastive_loss, permutation_recovery_loss
from vireid_lightning.methods import MMGL
from vireid_lightning.modules.stripes import draw_orders


def time_step(work: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Return the seconds of a forward and a backward pass, until the device is done."""
    start = time.perf_counter()
    work().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of each part."""
    device, images = torch.device(options.device), options.images
    torch.manual_seed(0)
    model = MMGL(backbone=options.backbone, two_stream_until=options.two_stream_until).to(device)
    modality = torch.arange(2, device=device).repeat_interleave(images)
    batch = {
        # As the datamodule hands it on: normalised on the device, in the memory format that images arrive in.
        "image": torch.randn(2 * images, 3, options.height, options.width, device=device),
        "identity": torch.full_like(modality, -1),
        "modality": modality,
        "index": torch.arange(2 * images),
    }
    parts = torch.randn(2 * images, 6, 256, device=device, requires_grad=True)
    scores = torch.randn(2 * images, 6, 6, device=device, requires_grad=True)
    order = draw_orders(2 * images, 6, (0,)).to(device)

    def with_precision(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def wrapped() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                return work()

        return wrapped

    work = {
        "backbone": lambda: model.backbone.features(batch["image"], modality)[-1].float().mean(),
        "step": lambda: sum(model.loss_weights.get(name, 1.0) * term for name, term in model.losses(batch).items()),
        "cycle-contrastive": lambda: cycle_contrastive_loss(parts[:images].flatten(0, 1), parts[images:].flatten(0, 1)),
        "permutation recovery": lambda: permutation_recovery_loss(scores, order),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(options.repeats + 1):
        for name, one in work.items():
            model.zero_grad()
            elapsed = time_step(with_precision(one), device)
            if repeat:  # the first round loads kernels
                times[name].append(elapsed)
    return {name: statistics.median(found) for name, found in times.items()}


def report(options: argparse.Namespace) -> None:
    """Print times, the ratio and the shares."""
    times = measure(options)
    size = f"{options.images} + {options.images} images of {options.height} x {options.width}"
    print(f"MMGL with {options.backbone}, {size}, {options.precision}, {options.device}, median of {options.repeats}")
    print(f"  backbone forward + backward  {1e3 * times['backbone']:9.1f} ms")
    print(
        f"  pre-training step            {1e3 * times['step']:9.1f} ms, ratio {times['step'] / times['backbone']:.3f}"
    )
    for name in ("cycle-contrastive", "permutation recovery"):
        print(f"  of which {name:<20}{1e3 * times[name]:9.1f} ms, {100 * times[name] / times['step']:.2f} %")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--two-stream-until", type=int, default=1)
    for name, default in (("images", 32), ("height", 288), ("width", 144), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


@pytest.mark.benchmark
def test_figures_are_printed():
    report(parse(["--images", "8", "--repeats", "3"]))


if __name__ == "__main__":
    report(parse())
