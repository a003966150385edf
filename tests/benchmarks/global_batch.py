"""How near training in several processes is to float64, beside one process, in float32.

Three steps of every method, of 1, 2 and 4 processes with the same batches, on tiny networks and images, batch
normalisation frozen or synchronised: relative errors against one process in float64, as norms over all loss terms, all
gradients and all weights; the largest of the steps, and for several processes the larger of 2's and 4's.

Run: python tests/benchmarks/global_batch.py [--write]    (about a minute on 2 cores)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table
from references.float32_errors import CASES, measure, name_case, run_float32

NORMS = {"eval": "frozen statistics", "sync": "synchronised"}


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_write_option(parser)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        runs = run_float32(Path(folder), shifts=())
    rows = {}
    for method, norm in CASES:
        case = name_case(method, norm)
        exact = runs[1, 0][f"{case} exact"]
        alone = measure([runs[1, 0][case]], exact)
        many = [measure([runs[count, rank][case] for rank in range(count)], exact) for count in (2, 4)]
        rows[f"{method.__name__}, {NORMS[norm]}"] = [
            [error]
            for what in alone
            for error in (max(alone[what]), max(step for errors in many for step in errors[what]))
        ]
    table = write_table(
        "global-batch",
        command=name_command(__file__, words),
        code=["tests/references/processes.py", *(f"vireid_lightning/{part}" for part in ("methods", "losses"))],
        settings={"steps": 3, "processes": [1, 2, 4]},
        columns=["", *(f"{what}, {who}" for what in alone for who in ("one process", "several"))],
        rows=rows,
        formats=".0e",
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))
    return table


@pytest.mark.benchmark
def test_every_method_is_compared_with_float64():
    table = main([])
    assert len(table["rows"]) == len(CASES)
    assert all(0 <= cell[0] < 1 for cells in table["rows"].values() for cell in cells)


if __name__ == "__main__":
    main()
