"""k-reciprocal re-ranking at SYSU-MM01's size against the usual NumPy loop, and its memory against its budget.

    python tests/benchmarks/rerank_speed.py [--queries 3803] [--gallery 301] [--values 2048]

The memory is what resident memory rises by at most during one call, in a process of its own that has called it once on
a few images; the embeddings are there before, the result is part of the rise. "Held" is measured with an allocator that
returns what is freed at once, the other value as it comes: glibc keeps some tens of MiB for each thread. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peak_memory import MemoryGrowth
from references.re_ranking import re_rank as slow_re_rank

from vireid_lightning.metrics import re_rank


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3803)
    parser.add_argument("--gallery", type=int, default=301)
    parser.add_argument("--values", type=int, default=2048)
    parser.add_argument("--people", type=int, default=96)
    parser.add_argument("--block-mb", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--memory-only", action="store_true", help="measure the memory at each budget and stop")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.memory_only:
        compare_memory(arguments)
        return
    query, gallery = embeddings(arguments)
    if arguments.child:
        print(f"{memory_growth(query, gallery, arguments.block_mb[0]):.0f}")
        return
    print(f"{len(query)} + {len(gallery)} images, {arguments.values} values, {torch.get_num_threads()} threads")
    ours, found = timed(lambda: re_rank(torch.from_numpy(query), torch.from_numpy(gallery)), 3)
    print(f"re_rank      {ours:8.2f} s")
    loop, expected = timed(lambda: slow_re_rank(query, gallery, dtype=np.float32), 1)
    print(f"NumPy loop   {loop:8.2f} s\nratio        {loop / ours:8.1f}")
    difference = np.abs(found.numpy() - expected)
    print(f"largest difference {difference.max():.1e}; above 1e-5: {(difference > 1e-5).sum()} of {difference.size}")
    compare_memory(arguments)


def embeddings(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised queries and gallery around the people's random centres."""
    draw = np.random.default_rng(0)
    centre = draw.standard_normal((arguments.people, arguments.values), dtype=np.float32)
    count = arguments.queries + arguments.gallery
    rows = centre[draw.integers(0, arguments.people, count)]
    rows = rows + 4 * draw.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[: arguments.queries], rows[arguments.queries :]


def compare_memory(arguments: argparse.Namespace) -> None:
    """Print the peak at each budget beside what is needed whatever the budget."""
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("queries", "gallery", "values", "people")]
    count = arguments.queries + arguments.gallery
    result, given, square = (
        4 * values / 2**20 for values in (arguments.queries * arguments.gallery, count * arguments.values, count**2)
    )
    print(f"result {result:.0f} MiB, embeddings {given:.0f}, N x N in float32 {square:.0f}")
    for budget in arguments.block_mb:
        command = [sys.executable, __file__, *sizes, "--child", f"--block-mb={budget}"]
        held, resident = (
            int(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | more).stdout)
            for more in ({"MALLOC_MMAP_THRESHOLD_": str(2**17)}, {})
        )
        print(f"block_mb {budget:4}: held at most {held:4} MiB more, resident {resident:4}")


def memory_growth(query: np.ndarray, gallery: np.ndarray, budget: int) -> float:
    re_rank(torch.from_numpy(query[:300]), torch.from_numpy(gallery[:300]))
    with MemoryGrowth() as growth:
        re_rank(torch.from_numpy(query), torch.from_numpy(gallery), block_mb=budget)
    return growth.mib


def timed(function, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


@pytest.mark.benchmark
def test_figures_are_printed():
    main(["--queries", "600", "--gallery", "100"])


if __name__ == "__main__":
    main()
