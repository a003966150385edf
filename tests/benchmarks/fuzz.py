"""Drawn configs, lists, manifests, embeddings, results and checkpoints: each is read, or refused in one sentence.

    python tests/benchmarks/fuzz.py [--cases 2000] [--seed 0]

Prints, for each kind, how many were read and refused, and each place that raised another exception with a file that
does it. Ends with code 1 where there is one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from references import fuzzing


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=fuzzing.SHARES, default=list(fuzzing.SHARES))
    arguments = parser.parse_args(words)
    warnings.simplefilter("ignore")
    failed = False
    for kind in arguments.kinds:
        cases, started = arguments.cases * fuzzing.SHARES[kind] // sum(fuzzing.SHARES.values()), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            before = Path.cwd()
            os.chdir(folder)
            try:
                told, foreign = fuzzing.run(kind, cases, Path(folder), start=arguments.seed)
            finally:
                os.chdir(before)
        seconds = time.perf_counter() - started
        print(
            f"{kind:<12}{told['read']:>6} read{told['refused']:>6} refused{told['foreign']:>4} others{seconds:7.1f} s"
        )
        for where, content in foreign.items():
            failed = True
            print(f"    {where}\n        {content[:600]!r}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
