"""Time of one image resized, 600 x 240 to 384 x 128 on one thread: ours, OpenCV without a filter, and Pillow.

Run: python tests/benchmarks/resize_speed.py [--images 40]

Prints milliseconds per image and the largest difference to Pillow in grey levels, on blurred noise. Ours is
Pillow itself, one pass after the other; torch's antialiased kernel for bytes is the faster way that was not taken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vireid_lightning.data.images.resizing import resize_image

SOURCE, TARGET = (600, 240), (384, 128)
ROUNDS = 7


def time_all(functions: dict[str, Callable], images: list) -> dict[str, float]:
    """Return milliseconds per image, the best of some rounds in which all take turns."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function(images[0])
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            for image in images:
                function(image)
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start) / len(images))
    return best


def resize_by_pillow(image, interpolation):
    kind = getattr(Image.Resampling, interpolation.upper())
    return np.asarray(Image.fromarray(image).resize(TARGET[::-1], kind))


def resize_by_torch(image, interpolation):
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    resized = torch.nn.functional.interpolate(pixels, size=TARGET, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def main(words: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    noise = np.random.default_rng(0).integers(0, 256, (arguments.images, *SOURCE, 3), dtype=np.uint8)
    images = [cv2.GaussianBlur(image, (5, 5), 1) for image in noise]
    functions: dict[str, Callable] = {}
    for name in ("bilinear", "bicubic", "lanczos"):
        for prefix in ("", "opencv-"):
            functions[prefix + name] = lambda image, kind=prefix + name: resize_image(image, TARGET, kind)
        if name != "lanczos":
            functions[f"torch-{name}"] = lambda image, kind=name: resize_by_torch(image, kind)
        functions[f"pillow-{name}"] = lambda image, kind=name: resize_by_pillow(image, kind)
    times = time_all(functions, images)
    print(
        f"{SOURCE[0]} x {SOURCE[1]} to {TARGET[0]} x {TARGET[1]}, one thread, {torch.backends.cpu.get_cpu_capability()}"
    )
    print(f"{'':10}{'ours':>10}{'OpenCV':>10}{'Pillow':>10}   largest difference to Pillow: ours, OpenCV")
    for name in ("bilinear", "bicubic", "lanczos"):
        pillow = [resize_by_pillow(image, name).astype(int) for image in images]
        far = [
            max(int(np.abs(resize_image(image, TARGET, kind) - wanted).max()) for image, wanted in zip(images, pillow))
            for kind in (name, f"opencv-{name}")
        ]
        shown = "".join(f"{times[prefix + name]:7.2f} ms" for prefix in ("", "opencv-", "pillow-"))
        print(
            f"{name:10}{shown}   {far[0]}, {far[1]}"
            + (f"   torch: {times[f'torch-{name}']:.2f} ms" if name != "lanczos" else "")
        )
    return times


@pytest.mark.benchmark
def test_two_passes_cost_no_more_than_pillows_one_call():
    times = main([])
    assert all(times[name] < 1.2 * times[f"pillow-{name}"] for name in ("bilinear", "bicubic", "lanczos"))


if __name__ == "__main__":
    main()
