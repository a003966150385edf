"""Score saved embeddings under all protocols of a dataset, without a model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from vireid_lightning.cli.datasets import add_dataset_arguments, choose_dataset, open_dataset
from vireid_lightning.cli.numbers import Number, Whole
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("embeddings", help="the .npz file that `lightning predict` wrote")
    parser.add_argument("--dataset", help="the dataset's class: SYSUMM01, or your own my_data.MyDataset")
    parser.add_argument("--root", help="the dataset's folder, whose index files are read; for a Manifest, its CSV file")
    add_dataset_arguments(parser)
    parser.add_argument(
        "--allow-trial-mismatch",
        action="store_true",
        help="score embeddings of weights that were trained on another trial; the result is marked as such",
    )
    parser.add_argument("--output", help="also write the results to this .json file")
    parser.add_argument(
        "--details", help="also write each query's average precision and the whole CMC curves to this .npz file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files to write where they exist")
    parser.add_argument("--metric", help="distance between embeddings, cosine or euclidean (default: the dataset's)")
    parser.add_argument(
        "--rerank", action="store_true", help="also score with k-reciprocal re-ranking, in rows of their own"
    )
    parser.add_argument(
        "--k1", type=Whole(1), default=20, help="number of neighbours that re-ranking considers (default: %(default)s)"
    )
    parser.add_argument(
        "--k2",
        type=Whole(1),
        default=6,
        help="number of images over which re-ranking averages neighbourhoods (default: %(default)s)",
    )
    parser.add_argument(
        "--lambda",
        type=Number(0, 1),
        default=0.3,
        dest="lambda_value",
        help="weight of the original distance in re-ranking, from 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--block-mb", type=Whole(1), default=256, help="MiB that a block of distances may take (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Score the embeddings, print the table, and write it where ``--output`` says.

    Raises:
        VIReIDError: If an argument or a file does not fit, before anything is computed where possible.
    """
    output = _find_target(arguments.output, "--output", ".json", arguments.overwrite)
    details = _find_target(arguments.details, "--details", ".npz", arguments.overwrite)
    if output is not None and details is not None and output.resolve() == details.resolve():
        raise VIReIDError(f"--output and --details both name {output}; give each a file of its own.")
    from vireid_lightning.metrics.distances import check_distance
    from vireid_lightning.metrics.evaluation import evaluate_file
    from vireid_lightning.metrics.re_ranking import ReRanking
    from vireid_lightning.metrics.results import write_details, write_results

    settings = ReRanking(arguments.k1, arguments.k2, arguments.lambda_value)
    if arguments.metric is not None:
        check_distance(arguments.metric)
    dataset = open_dataset(*choose_dataset(arguments))
    start = time.perf_counter()
    table = evaluate_file(
        arguments.embeddings,
        dataset,
        distance=arguments.metric,
        block_mb=arguments.block_mb,
        rerank=settings if arguments.rerank else False,
        allow_trial_mismatch=arguments.allow_trial_mismatch,
        progress=True,
    )
    seconds = time.perf_counter() - start
    table.print(f"{table.title}: {arguments.embeddings}")
    print(f"Read and scored in {seconds:.1f} s")
    if output is not None:
        write_results(output, table.to_dict())
        print(f"Results: {output}")
    if details is not None:
        write_details(details, table)
        print(f"Details: {details}")


def _find_target(given: str | None, option: str, suffix: str, overwrite: bool) -> Path | None:
    """Return the path of a file to write, None where it is not asked for.

    Raises:
        VIReIDError: If it is a folder, or a file that must not be replaced.
    """
    if given is None:
        return None
    path = Path(given)
    if path.is_dir():
        raise VIReIDError(f"{path} is a folder; give {option} the name of a {suffix} file.")
    if path.exists() and not overwrite:
        raise VIReIDError(f"{path} exists; give --overwrite to replace it, or another {option}.")
    return path
