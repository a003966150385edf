"""How long it takes to list a dataset of SYSU-MM01's size, to build its protocols, and to check its image cache.

A tree of empty files: 491 identities, six cameras, 15 images each, 44,190 in all (the real one has 44,745). The file
system's own cache is warm. "Cache checked" is what a start with a finished image cache does: look at the size and time
of change of every training image. Nothing of this is kept between runs, so a listing can never be stale.

Run: python tests/benchmarks/listing_speed.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.data import SYSUMM01
from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01


def write_tree(root: Path, *, train: int, val: int, test: int, images: int) -> int:
    """Write the index files and empty images; return how many images there are."""
    plan = plan_sysu_mm01(train=train, val=val, test=test, images_per_camera=images)
    for path, content in plan.index_files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
    for image in plan.images:
        (root / image.path).parent.mkdir(parents=True, exist_ok=True)
        (root / image.path).touch()
    return len(plan.images)


def measure(root: Path) -> dict[str, float]:
    """Return the seconds of each part of a start."""
    times = [time.perf_counter()]
    dataset = SYSUMM01(root)
    train, test = dataset.samples("train"), dataset.samples("test")
    times.append(time.perf_counter())
    dataset.protocols(test)
    times.append(time.perf_counter())
    ImageCache(root.parent / "cache", ImageFiles(root, [sample.path for sample in train], (384, 128))).is_fresh()
    times.append(time.perf_counter())
    names = ("listed", "protocols built", "cache checked")
    return {name: after - before for name, before, after in zip(names, times, times[1:])}


def main(words: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is printed (default: 5)")
    parser.add_argument("--quick", action="store_true", help="few identities: does it run?")
    options = parser.parse_args(words)
    counts = {"train": 8, "val": 2, "test": 6} if options.quick else {"train": 296, "val": 99, "test": 96}
    with tempfile.TemporaryDirectory() as folder:
        number = write_tree(Path(folder) / "SYSU-MM01", **counts, images=10 if options.quick else 15)
        rounds = [measure(Path(folder) / "SYSU-MM01") for _ in range(options.rounds)]
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    print(f"{number} images, medians of {options.rounds}\n\n| Part | Seconds |\n|---|---:|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} |")
    return medians


@pytest.mark.benchmark
def test_every_part_is_timed():
    assert list(main(["--quick", "--rounds", "1"])) == ["listed", "protocols built", "cache checked"]


if __name__ == "__main__":
    main()
