"""Augmentation beside torchvision's transforms as the releases use them: rates, places, areas and levels of many draws.

Run: python tests/benchmarks/transform_distributions.py [--draws 2000]     (a minute)

Each line: mean and standard deviation of a measure over the authors' draws, and over ours, and the p-value of a
two-sample Kolmogorov-Smirnov test.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from scipy.stats import ks_2samp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from references.authors_transforms import OURS, compare


def main(words: list[str] | None = None) -> float:
    """Print the table; return the smallest p-value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args(words)
    smallest = 1.0
    print(f"{'':8}{'':16}{'authors':>18}{'ours':>18}{'p':>8}")
    for name in OURS:
        for measure, (authors, ours) in compare(name, arguments.draws).items():
            p = ks_2samp(authors, ours).pvalue
            cells = (f"{values.mean():.3f} ({values.std():.3f})" for values in (authors, ours))
            print(f"{name:8}{measure:16}" + "".join(f"{cell:>18}" for cell in cells) + f"{p:8.3f}")
            smallest = min(smallest, p)
    return smallest


@pytest.mark.benchmark
def test_no_distribution_differs():
    assert main([]) > 0.001


if __name__ == "__main__":
    main()
