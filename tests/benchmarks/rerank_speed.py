"""k-reciprocal re-ranking at SYSU-MM01's size against the usual NumPy loop.

python tests/benchmarks/rerank_speed.py [--queries 3803] [--gallery 301] [--values 2048]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from references.re_ranking import re_rank as slow_re_rank

from vireid_lightning.metrics import re_rank


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3803)
    parser.add_argument("--gallery", type=int, default=301)
    parser.add_argument("--values", type=int, default=2048)
    parser.add_argument("--people", type=int, default=96)
    arguments = parser.parse_args(words)
    draw = np.random.default_rng(0)
    centre = draw.standard_normal((arguments.people, arguments.values), dtype=np.float32)
    count = arguments.queries + arguments.gallery
    rows = centre[draw.integers(0, arguments.people, count)]
    rows = rows + 4 * draw.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query, gallery = rows[: arguments.queries], rows[arguments.queries :]

    print(f"{len(query)} + {len(gallery)} images, {arguments.values} values, {torch.get_num_threads()} threads")
    ours, found = timed(lambda: re_rank(torch.from_numpy(query), torch.from_numpy(gallery)), 3)
    print(f"re_rank      {ours:8.2f} s")
    loop, expected = timed(lambda: slow_re_rank(query, gallery, dtype=np.float32), 1)
    print(f"NumPy loop   {loop:8.2f} s\nratio        {loop / ours:8.1f}")
    difference = np.abs(found.numpy() - expected)
    print(f"largest difference {difference.max():.1e}; above 1e-5: {(difference > 1e-5).sum()} of {difference.size}")


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
