"""Score saved embeddings under all protocols of a dataset, without a model."""

from __future__ import annotations

import argparse
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vireid_lightning.errors import VIReIDError, did_you_mean

if TYPE_CHECKING:
    from vireid_lightning.data.dataset import ReIDDataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("embeddings", help="the .npz file that `lightning predict` wrote")
    parser.add_argument("--dataset", required=True, help="class of the dataset, such as SYSUMM01")
    parser.add_argument("--root", required=True, help="the dataset's folder; only its index files are read")
    parser.add_argument("--trial", type=int, help="the split's number, for a dataset that has several (RegDB)")
    parser.add_argument("--output", help="also write the results to this .json file")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")
    parser.add_argument("--metric", help="cosine or euclidean; by default the dataset's distance")
    parser.add_argument("--rerank", action="store_true", help="add rows with k-reciprocal re-ranking")
    parser.add_argument("--k1", type=int, default=20, help="neighbours that re-ranking considers")
    parser.add_argument("--k2", type=int, default=6, help="images that it averages neighbourhoods over")
    parser.add_argument("--lambda", type=float, default=0.3, dest="lambda_value", help="weight of the first distance")
    parser.add_argument("--block-mb", type=int, default=256, help="MiB that a block of distances may take")


def run(arguments: argparse.Namespace) -> None:
    """Score, print the table, and write it where asked to.

    Raises:
        VIReIDError: For bad input; before anything is computed where it can be.
    """
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.exists() and not arguments.overwrite:
        raise VIReIDError(f"{output} exists; give --overwrite to replace it, or another --output.")
    if arguments.block_mb < 1:
        raise VIReIDError(f"--block-mb is {arguments.block_mb}; give at least 1.")
    from vireid_lightning.metrics.distances import check_distance
    from vireid_lightning.metrics.evaluation import evaluate_file
    from vireid_lightning.metrics.re_ranking import ReRanking
    from vireid_lightning.metrics.results import write_results

    settings = ReRanking(arguments.k1, arguments.k2, arguments.lambda_value)

    if arguments.metric is not None:
        check_distance(arguments.metric)
    dataset = _dataset(arguments.dataset, arguments.root, arguments.trial)
    start = time.perf_counter()
    table = evaluate_file(
        arguments.embeddings,
        dataset,
        distance=arguments.metric,
        block_mb=arguments.block_mb,
        rerank=settings if arguments.rerank else False,
    )
    seconds = time.perf_counter() - start
    table.print(f"{dataset.name}: {arguments.embeddings}")
    print(f"Read and scored in {seconds:.1f} s")
    if output is not None:
        about = {
            "stage": "evaluate",
            "dataset": dataset.name,
            "fingerprint": _fingerprint(dataset),
            "dataset_trial": dataset.trial,
            "embeddings": str(Path(arguments.embeddings).resolve()),
        }
        write_results(output, table.to_dict(about))
        print(f"Results: {output}")


def _fingerprint(dataset: ReIDDataset) -> str | None:
    """Return the fingerprint, or None where the images are not there: scoring does not need them."""
    try:
        return dataset.fingerprint()
    except VIReIDError:
        return None


def _dataset(name: str, root: str, trial: int | None) -> ReIDDataset:
    from vireid_lightning import data
    from vireid_lightning.data.dataset import ReIDDataset

    classes = {
        public: value
        for public, value in ((public, getattr(data, public)) for public in data.__all__)
        if inspect.isclass(value) and issubclass(value, ReIDDataset) and value is not ReIDDataset
    }
    if name not in classes:
        raise VIReIDError(
            f"There is no dataset '{name}'; the datasets are {', '.join(classes)}.{did_you_mean(name, classes)}"
        )
    if name == "Synthetic":
        raise VIReIDError(
            "Synthetic draws the images that its folder lacks; score embeddings of its images as the dataset whose "
            "layout they have, SYSUMM01, with that folder as the root."
        )
    takes_trial = "trial" in inspect.signature(classes[name]).parameters
    if trial is not None and not takes_trial:
        raise VIReIDError(f"{name} has one split only; leave out --trial.")
    return classes[name](root, **({} if trial is None else {"trial": trial}))
