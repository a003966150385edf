"""Values, time and peak memory of the sparse Jaccard distance against the row-by-row numpy implementation.

Run by hand: python tests/benchmarks/jaccard.py [--images 12000] [--dimensions 256] [--dbscan 34000]. Each measurement
is a process of its own, so that the peak resident memory is that of one implementation, libraries included. Features
are planted clusters of 30 images, some of which overlap.
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
PER_CLUSTER = 30


def peak_megabytes() -> float:
    """Peak resident memory of this process; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def planted(images: int, dimensions: int):
    """Features around random centres, noise of 1.5 times the distance of a centre from the origin."""
    import torch

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(-(-images // PER_CLUSTER), dimensions, generator=generator)
    noise = torch.randn(images, dimensions, generator=generator)
    return centres.repeat_interleave(PER_CLUSTER, dim=0)[:images] + 1.5 * noise


def measure(what: str, images: int, dimensions: int) -> dict[str, float]:
    """One implementation in this process."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import numpy as np
    from references.jaccard import jaccard_reference

    from vireid_lightning.clustering import dbscan_labels, jaccard_distance

    features = planted(images, dimensions)
    if what == "values":
        reference = jaccard_reference(features.double().numpy())
        result = {}
        for name, given in (("float32", features), ("float64", features.double())):
            graph = jaccard_distance(given).tocoo()
            full = np.ones(reference.shape)
            full[graph.row, graph.col] = graph.data
            result[name] = float(np.abs(full - reference).max())
        return result
    start = time.perf_counter()
    if what == "rows":
        jaccard_reference(features.numpy())
    elif what == "sparse":
        jaccard_distance(features)
    else:
        labels = dbscan_labels(features)
    result = {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes()}
    if what == "dbscan":
        result |= {"clusters": int(labels.max()) + 1, "outliers": int((labels < 0).sum())}
    return result


def measured(what: str, images: int, dimensions: int) -> dict[str, float]:
    """Return :func:`measure` in a process of its own."""
    command = [sys.executable, __file__, "--only", what, f"--images={images}", f"--dimensions={dimensions}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def compare(images: int, dimensions: int, dbscan: int) -> float:
    """Print all figures; return how many times as fast the sparse implementation is."""
    for name, difference in measured("values", 2000, dimensions).items():
        print(f"2000 images of {dimensions} values, {name}: largest difference from the reference {difference:.1e}")
    slow, fast = (measured(what, images, dimensions) for what in ("rows", "sparse"))
    print(f"{images} images of {dimensions} values, k1 = 30, k2 = 6")
    for name, result in (("row by row, numpy", slow), ("sparse and blocked", fast)):
        print(f"  {name}: {result['seconds']:.1f} s, peak {result['megabytes']:.0f} MB")
    ratio = slow["seconds"] / fast["seconds"]
    print(f"  {ratio:.1f} times as fast, 1/{slow['megabytes'] / fast['megabytes']:.1f} of the peak memory")
    labels = measured("dbscan", dbscan, dimensions)
    print(
        f"{dbscan} images, DBSCAN labels: {labels['seconds']:.1f} s, peak {labels['megabytes']:.0f} MB, "
        f"{labels['clusters']} clusters ({-(-dbscan // PER_CLUSTER)} planted), {labels['outliers']} outliers"
    )
    return ratio


@pytest.mark.benchmark
def test_figures_are_printed():
    assert compare(4000, 256, 8000) > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 12_000), ("dimensions", 256), ("dbscan", 34_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=("values", "rows", "sparse", "dbscan"), help="measure one, print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.images, options.dimensions)))
    else:
        compare(options.images, options.dimensions, options.dbscan)
