"""The four official SYSU-MM01 protocols, ten trials each, at the real size, against the toolboxes' per-query loop.

    python tests/benchmarks/ranking_speed.py [--spread 4] [--exp FOLDER]

Prints the times of both, their ratio, the time of the one matrix product that is the floor, and the peak memory of a
process that only scores. The loop runs with NumPy's fastest sort, not the stable one that exact ties need.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from references import sysu_mm01
from references.data_folder import TEST_DATA
from references.ranking import score_trials

from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.scoring import score_protocols
from vireid_lightning.protocols import Protocol, Trial


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", type=Path, default=TEST_DATA / "sysu_mm01/exp")
    parser.add_argument("--values", type=int, default=2048)
    parser.add_argument("--spread", type=float, default=4.0, help="noise; larger makes retrieval harder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--score-only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)

    identity, camera, _ = sysu_mm01.test_images(arguments.exp)
    if arguments.score_only is not None:
        embedding = np.load(arguments.score_only)
    else:
        embedding = sysu_mm01.random_embeddings(identity, camera, arguments.values, arguments.spread)
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    query = np.flatnonzero((camera == 3) | (camera == 6))
    kinds = [(mode, shot) for mode in ("all", "indoor") for shot in ("single", "multi")]
    protocols = [
        Protocol(
            f"{mode}/{shot}",
            tuple(Trial(query, g) for g in sysu_mm01.official_galleries(arguments.exp, mode, shot)),
            "sysu",
            "identity",
        )
        for mode, shot in kinds
    ]
    embeddings = Embeddings(embedding, identity, camera)
    if arguments.score_only is not None:
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        score_protocols(embeddings, embeddings, protocols)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory {after / 2**20:.2f} GiB ({before / 2**20:.2f} GiB of it before scoring)")
        return

    visible = np.flatnonzero((camera != 3) & (camera != 6))
    sizes = f"{len(query)} queries, {len(visible)} visible images, {arguments.values} values"
    print(f"{sizes}, {torch.get_num_threads()} threads")
    columns, rows = torch.from_numpy(embedding[visible]), torch.from_numpy(embedding[query])
    floor, _ = timed(lambda: rows @ columns.T, arguments.repeats)
    print(f"one matrix product          {floor:8.2f} s")
    ours, scores = timed(lambda: score_protocols(embeddings, embeddings, protocols), arguments.repeats)
    print(f"score_protocols             {ours:8.2f} s")
    loop, expected = timed(lambda: [loop_over(embedding, identity, camera, protocol) for protocol in protocols], 1)
    print(f"per-query loop              {loop:8.2f} s\nratio                       {loop / ours:8.1f}")
    for score, (curve, average_precision, inverse_negative_penalty) in zip(scores, expected):
        reference = 100 * np.array([curve[0], average_precision, inverse_negative_penalty])
        found = np.array([score.rank1, score.mAP, score.mINP])
        print(
            f"  {score.name:14} Rank-1/mAP/mINP {found.round(3)}  largest difference {abs(found - reference).max():.1e}"
        )
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embedding.npy"
        np.save(path, embedding)
        command = [sys.executable, __file__, "--score-only", str(path), "--exp", str(arguments.exp)]
        subprocess.run(command, check=True)


def timed(function, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def loop_over(embedding, identity, camera, protocol):
    query = protocol.trials[0].query
    return score_trials(
        (embedding[query], identity[query], camera[query]),
        (embedding, identity, camera),
        [trial.gallery for trial in protocol.trials],
        protocol.removal,
        protocol.cmc,
        "quicksort",
    )


@pytest.mark.benchmark
def test_figures_are_printed(shared_data):
    main(["--exp", str(shared_data / "sysu_mm01/exp"), "--repeats", "1"])


if __name__ == "__main__":
    main()
