"""What a report is made of: a run's folder, or a file of embeddings with its dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vireid_lightning.cli.datasets import find_dataset, find_exported, list_datasets, name_root, open_dataset
from vireid_lightning.cli.numbers import Whole
from vireid_lightning.cli.repeated_runs import read_configs
from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from vireid_lightning.data.datasets.base import ReIDDataset
    from vireid_lightning.report import ReportContent


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that say what is shown."""
    parser.add_argument(
        "source",
        metavar="RUN|EMBEDDINGS",
        help="the folder of a run that holds config.yaml, or the .npz file that `lightning predict` wrote",
    )
    parser.add_argument(
        "--root", help="the dataset's folder; for a Manifest, its CSV file (default: the one in the run's config)"
    )
    parser.add_argument(
        "--dataset",
        help="the dataset's class: SYSUMM01, or your own my_data.MyDataset (default: the one that the embeddings name)",
    )
    parser.add_argument(
        "--trial", type=Whole(1), help="number of the split, for a dataset that has several, such as RegDB"
    )
    parser.add_argument("--direction", help="the direction that a Manifest is scored in, such as visible-to-infrared")
    parser.add_argument(
        "--checkpoint", default="last", help="checkpoint of the run that is shown, last or best (default: %(default)s)"
    )
    parser.add_argument("--curves", help="the metrics.csv of the training run (default: the run's own)")
    parser.add_argument("--metric", help="distance between embeddings, cosine or euclidean (default: the dataset's)")
    parser.add_argument(
        "--rerank", action="store_true", help="also score with k-reciprocal re-ranking, in rows of their own"
    )
    parser.add_argument(
        "--allow-trial-mismatch",
        action="store_true",
        help="show embeddings of weights that were trained on another trial; the result is marked as such",
    )
    parser.add_argument(
        "--allow-preprocessing-mismatch",
        action="store_true",
        help="embed a run's images though they are prepared otherwise than in training; the result is marked as such",
    )


def collect_source(arguments: argparse.Namespace, *, lists: int, queries: Sequence[str] = ()) -> ReportContent:
    """Return what is to be shown: embeddings of a run are made where it has none of that checkpoint.

    Raises:
        VIReIDError: For a folder that is no run, a dataset that is not known, or what cannot be scored.
    """
    from vireid_lightning.report.requirements import require_packages

    require_packages("jinja2", "matplotlib")
    source = Path(arguments.source)
    if source.is_dir():
        dataset, path, curves = _open_run(source, arguments)
    else:
        dataset, path, curves = _open_embeddings(source, arguments)
    from vireid_lightning.metrics import Embeddings, evaluate_file
    from vireid_lightning.report import collect

    table = evaluate_file(
        path,
        dataset,
        distance=arguments.metric,
        rerank=arguments.rerank,
        allow_trial_mismatch=arguments.allow_trial_mismatch,
        progress=True,
    )
    return collect(
        Embeddings.load(path),
        table,
        default=dataset.default_protocol,
        root=dataset.root,
        outside=bool(getattr(dataset, "allow_outside", False)),
        names=dataset.identity_names,
        training=arguments.curves or curves,
        lists=lists,
        queries=queries,
    )


def find_output_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run, or that of the embeddings."""
    source = Path(arguments.source)
    return source if source.is_dir() else source.parent


def _open_embeddings(path: Path, arguments: argparse.Namespace) -> tuple[ReIDDataset, Path, Path | None]:
    from vireid_lightning.metrics import Embeddings

    about = Embeddings.load(path).about
    if arguments.root is None:
        raise VIReIDError(f"Give --root, the folder of the dataset that {path} is of: its protocols are read there.")
    name = arguments.dataset
    if name is None:
        known = {cls.name: title for title, cls in find_exported().items()}
        name = known.get(str(about.get("dataset")))
        if name is None:
            raise VIReIDError(
                f"{path} does not say which dataset it is of; give --dataset, such as {', '.join(list_datasets())}."
            )
    trial = arguments.trial
    if trial is None and arguments.dataset is None:
        trial = about.get("dataset_trial")  # so that the split is the one that was embedded
    cls = find_dataset(name)
    given = {name_root(cls): arguments.root, "trial": trial, "direction": arguments.direction}
    dataset = open_dataset(cls, {option: value for option, value in given.items() if value is not None})
    return dataset, path, _find_curves(about)


def _find_curves(about: dict[str, Any]) -> Path | None:
    """Return the ``metrics.csv`` of the run that wrote the embeddings' checkpoint, where it still lies there."""
    if not isinstance(about.get("checkpoint"), str):
        return None
    path = Path(about["checkpoint"]).parent.parent / "metrics.csv"
    return path if path.is_file() else None


def _open_run(folder: Path, arguments: argparse.Namespace) -> tuple[ReIDDataset, Path, Path | None]:
    config = folder / "config.yaml"
    if not config.is_file():
        found = sorted(path.parent for path in folder.glob("*/config.yaml"))
        hint = f"; give one of its runs, such as {found[-1]}" if found else "; give the folder that holds config.yaml"
        raise VIReIDError(f"{folder} is no folder of a run{hint}.")
    if arguments.checkpoint not in ("last", "best"):
        raise VIReIDError(f"--checkpoint is '{arguments.checkpoint}'; give last or best.")
    checkpoint = folder / "checkpoints" / f"{arguments.checkpoint}.ckpt"
    dataset = _open_configured(config, arguments)
    curves = folder / "metrics.csv"
    embeddings = folder / f"embeddings_{arguments.checkpoint}.npz"
    if not checkpoint.is_file():
        raise VIReIDError(
            f"There is no checkpoint {checkpoint}; train the run first, or give a file that `lightning predict` wrote."
        )
    if not embeddings.is_file() or embeddings.stat().st_mtime < checkpoint.stat().st_mtime:
        _embed(config, checkpoint, embeddings, arguments)
    return dataset, embeddings, curves if curves.is_file() else None


def _open_configured(config: Path, arguments: argparse.Namespace) -> ReIDDataset:
    """Return the dataset of a run's config, in the folder that ``--root`` names."""
    data = read_configs([str(config)])[0].get("data")
    settings = data.get("dataset") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("class_path"), str):
        raise VIReIDError(f"{config} names no dataset; give the embeddings and --dataset instead of the run.")
    path, given = settings["class_path"], dict(settings.get("init_args") or {})
    own = "." not in path or path.startswith("vireid_lightning.")
    cls = (find_exported().get(path.rpartition(".")[2]) if own else None) or find_dataset(path)
    options = {name_root(cls): arguments.root, "trial": arguments.trial, "direction": arguments.direction}
    given |= {name: value for name, value in options.items() if value is not None}
    try:
        return cls(**given)
    except TypeError as error:
        raise VIReIDError(f"{cls.__name__} cannot be opened as {config} says: {error}.") from error


def _embed(config: Path, checkpoint: Path, target: Path, arguments: argparse.Namespace) -> None:
    """Write the embeddings of a run's checkpoint, as ``lightning predict`` does, into the run's folder."""
    from vireid_lightning.callbacks.save_embeddings import SaveEmbeddings
    from vireid_lightning.cli.training import run

    # A folder of its own: Lightning writes the prediction's config there, which must not replace the training's.
    with TemporaryDirectory(prefix="embedding_", dir=target.parent) as folder:
        command = ["predict", "--config", str(config), "--ckpt_path", str(checkpoint), "--trainer.logger=false"]
        command.append(f"--trainer.default_root_dir={folder}")
        for name in ("root", "trial", "direction"):
            if (value := getattr(arguments, name)) is not None:
                command.append(f"--data.dataset.init_args.{name}={value}")
        if arguments.allow_preprocessing_mismatch:
            command.append("--allow-preprocessing-mismatch")
        cli = run(command)
        for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside
            if isinstance(callback, SaveEmbeddings):
                (Path(folder) / callback.filename).replace(target)
