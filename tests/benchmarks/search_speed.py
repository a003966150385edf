"""Milliseconds of a query against a gallery after loading, beside NumPy's plain matrix product and sort.

Run by hand: ``python tests/benchmarks/search_speed.py [--images 5000] [--index]``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table

from vireid_lightning.deployment import Gallery, GalleryIndex
from vireid_lightning.metrics import Embeddings

VALUES = (512, 2048, 14336)  # of a small network, of a ResNet-50, and of seven times that


def make(count, values, seed):
    generator = torch.Generator().manual_seed(seed)
    return Embeddings(torch.randn(count, values, generator=generator), torch.zeros(count, dtype=torch.long))


def measure(function, queries):
    """Return the median and the longest time of single queries, in milliseconds."""
    seconds = []
    for row in range(len(queries)):
        query = Embeddings(queries.embedding[row : row + 1], [0])
        start = time.perf_counter()
        function(query)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds)), 1000 * max(seconds)


def plain(rows, query, k=10):
    asked = query.embedding.numpy()[0]
    return np.argsort(1 - rows @ (asked / np.linalg.norm(asked)), kind="stable")[:k]


def compare(images, values, queries=50, index=False):
    """Return the times of one size, a row of the table."""
    gallery = make(images, values, 0)
    start = time.perf_counter()
    searched = Gallery(gallery)
    asked = make(queries, values, 1)
    searched.search(Embeddings(asked.embedding[:1], [0]))
    loading = time.perf_counter() - start
    rows = torch.nn.functional.normalize(gallery.embedding).numpy()
    found = searched.search(asked).position
    for row in range(len(asked)):
        assert found[row].tolist() == plain(rows, Embeddings(asked.embedding[row : row + 1], [0])).tolist()
    (middle, longest), (reference, _) = (
        measure(searched.search, asked),
        measure(lambda query: plain(rows, query), asked),
    )
    if index:
        start = time.perf_counter()
        built = GalleryIndex.build(searched, sample=make(200, values, 2))
        seconds = time.perf_counter() - start
        print(f"  index: {seconds:.0f} s, recall {built.about['recall']:.3f}, {measure(built.search, asked)[0]:.1f} ms")
    return [[loading], [middle], [longest], [reference]]


@pytest.mark.benchmark
def test_a_query_among_5000_images_takes_less_than_50_milliseconds():
    assert compare(5000, 2048, queries=20)[1][0] < 50


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="images of the gallery (default: %(default)s)")
    parser.add_argument("--index", action="store_true", help="also build and search an index by faiss")
    add_write_option(parser)
    arguments = parser.parse_args(words)
    print(f"{torch.get_num_threads()} threads")
    table = write_table(
        "search-speed",
        command=name_command(__file__, words),
        code=["tests/benchmarks/search_speed.py", "vireid_lightning/deployment", "vireid_lightning/metrics"],
        settings=vars(arguments),
        columns=["Gallery", "Loading, s", "Query, ms", "longest", "NumPy, ms"],
        rows={
            f"{arguments.images:,} images of {values:,} values": compare(
                arguments.images, values, index=arguments.index
            )
            for values in VALUES
        },
        formats=[".2f", ".1f", ".1f", ".1f"],
        count=None,
        folder=FIGURES if arguments.write else None,
    )
    print(format_table(table))


if __name__ == "__main__":
    main()
