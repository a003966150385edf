"""How fast synthetic pedestrians are drawn and written, against writing such JPEG files alone, in the same run.

Run: python tests/benchmarks/synthesis_speed.py [--images 3000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import pytest

from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01


def write_alone(root: Path, images: int) -> float:
    """Encode and write one drawn image over and over: the floor. Return images per second."""
    pixels = cv2.imread(str(next(root.rglob("*.jpg"))))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        for number in range(images):
            _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
            (Path(folder) / f"{number}.jpg").write_bytes(encoded.tobytes())
        return images / (time.perf_counter() - begin)


def main(words: list[str] | None = None) -> float:
    """Print images per second of one process and of two; return that of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    arguments = parser.parse_args(words)
    cv2.setNumThreads(1)
    plan = plan_sysu_mm01(train=max(1, arguments.images // 60 - 2), val=1, test=1, images_per_camera=10)
    with tempfile.TemporaryDirectory() as folder:
        speed = {}
        for workers in (1, 2):
            wall, cpu = time.perf_counter(), time.process_time()
            write_plan(plan, Path(folder) / str(workers), workers=workers)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            speed[workers] = len(plan.images) / wall
            own = f", {len(plan.images) / cpu:.0f} a second of processor time" if workers == 1 else ""
            print(
                f"{workers} process(es): {len(plan.images)} images of 128 x 64 in {wall:.1f} s: "
                f"{speed[workers]:.0f}/s{own}"
            )
        floor = write_alone(Path(folder), len(plan.images))
    print(f"writing JPEG files alone: {floor:.0f}/s; drawing and writing takes {floor / speed[1]:.1f} times as long")
    return speed[1]


@pytest.mark.benchmark
def test_at_least_150_images_a_second():
    assert main([]) >= 150


if __name__ == "__main__":
    main()
