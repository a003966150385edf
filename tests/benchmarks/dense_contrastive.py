"""Time and peak memory of the dense contrastive loss against the obvious implementation that holds its matrices.

And against the three matrix products that any exact implementation needs: the cosines, and the gradients of both sides.

Run by hand: python tests/benchmarks/dense_contrastive.py [--pairs 16] [--repeats 5]. Each measurement is a process of
its own, so that the peak resident memory is that of one implementation; what the process held before the first call,
inputs included, is subtracted. The fastest repeat counts, since other processes can only slow it down.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def peak_megabytes() -> float:
    """Peak resident memory of this process; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def inputs(pairs: int, channels: int, height: int, width: int):
    """Non-negative maps, as after a ReLU; masks of six stripes with a background of about half of the pixels."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, pairs, channels, height, width, generator=generator)
    stripes = (torch.arange(height) * 6 // height + 1)[:, None].expand(height, width)
    blobs = F.interpolate(torch.rand(2 * pairs, 1, 9, 6, generator=generator), (height, width), mode="bilinear")
    masks = (stripes * (blobs[:, 0] > 0.5)).view(2, pairs, height, width)
    visible, infrared = (half.to(memory_format=torch.channels_last).requires_grad_() for half in maps)
    return visible, infrared, masks[0], masks[1]


def multiply(visible, infrared, visible_mask, infrared_mask):
    """The products alone: pixels with a term against all pixels, all others against those that have one."""
    import torch

    with torch.no_grad():
        for pair, (mask, other) in enumerate(zip(visible_mask, infrared_mask)):
            rows, columns = (maps[pair].permute(1, 2, 0).flatten(0, 1) for maps in (visible, infrared))
            count = int((mask > 0).sum())
            for part, width in ((rows[:count], len(columns)), (rows[count:], int((other > 0).sum()))):
                cosines = part @ columns[:width].t()
                gradients = cosines @ columns[:width], cosines.t() @ part
    return gradients[0].sum()


def measure(implementation: str, shape: tuple[int, int, int, int], repeats: int) -> dict[str, float]:
    """Forward and backward in this process."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from references.dense_contrastive import dense_contrastive_reference

    from vireid_lightning.host_memory import keep_freed_memory
    from vireid_lightning.losses.dense_contrastive import dense_contrastive_loss

    keep_freed_memory()  # as in training
    loss = {"obvious": dense_contrastive_reference, "blocked": dense_contrastive_loss, "products": multiply}
    loss = loss[implementation]
    small = inputs(1, 8, 12, 6)
    loss(*small)  # loads the libraries' kernels before memory is counted
    visible, infrared, *masks = inputs(*shape)
    before, seconds, processor = peak_megabytes(), [], []
    for _ in range(repeats):
        visible.grad = infrared.grad = None
        start, start_processor = time.perf_counter(), time.process_time()
        value = loss(visible, infrared, *masks)
        if value.requires_grad:
            value.backward()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return {
        "seconds": min(seconds),
        "processor": min(processor),
        "megabytes": peak_megabytes() - before,
        "value": value.item(),
    }


def compare(shape: tuple[int, int, int, int], repeats: int) -> dict[str, dict[str, float]]:
    """Both implementations and the products, each in a process of its own."""
    results = {}
    for name in ("obvious", "blocked", "products"):
        command = [sys.executable, __file__, "--only", name, "--repeats", str(repeats)]
        command += [f"--{key}={value}" for key, value in zip(("pairs", "channels", "height", "width"), shape)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[name] = json.loads(done.stdout)
    slow, fast = results["obvious"], results["blocked"]
    print(f"{shape[0]} pairs of {shape[1]} x {shape[2]} x {shape[3]}, forward and backward, fastest of {repeats}")
    for name, result in results.items():
        loss = "" if name == "products" else f", loss {result['value']:.6f}"
        print(
            f"  {name}: {result['seconds']:.2f} s ({result['processor']:.2f} s of processor time), "
            f"{result['megabytes']:.0f} MB{loss}"
        )
    speed, memory = slow["seconds"] / fast["seconds"], slow["megabytes"] / fast["megabytes"]
    print(f"  {speed:.1f} times as fast in 1/{memory:.1f} of the peak memory")
    print(f"  {fast['seconds'] / results['products']['seconds']:.2f} times as long as its products alone")
    return results


@pytest.mark.benchmark
def test_figures_are_printed():
    compare((16, 256, 72, 36), repeats=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("pairs", 16), ("channels", 256), ("height", 72), ("width", 36), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--only", choices=("obvious", "blocked", "products"), help="measure one, print JSON (used by the script)"
    )
    options = parser.parse_args()
    wanted = (options.pairs, options.channels, options.height, options.width)
    if options.only:
        print(json.dumps(measure(options.only, wanted, options.repeats)))
    else:
        compare(wanted, options.repeats)
