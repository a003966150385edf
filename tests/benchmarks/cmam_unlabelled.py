"""What CMAM's stages and parts are worth from ImageNet weights, with no label of source or target.

Stage 1 clusters visible images of a source in Market-1501's layout by itself; stage 2 goes on with an unlabelled target
of other people in SYSU-MM01's layout, whose unseen test people are searched (all-search, single-shot). Colours help
within the visible images. With ``--likeness 0`` a drawn person's near-infrared brightness depends on neither the colour
nor its brightness; with ``--likeness 1`` it is the colour's gray value, so that only the colour misleads between the
modalities, as the method assumes.
Network: EfficientNet-Lite0 from the extra ``small-weights``. Rows: ImageNet's weights as they are; stage 1, and without
each of its mutual terms; stage 2, and without matching, with one clusterer alone, and with the gray model's embedding
added; the supervised Baseline with the target's labels. Every run keeps clusters, outliers, v-measure and right pairs
by epoch.

Run: python tests/benchmarks/cmam_unlabelled.py [--output runs/cmam_unlabelled]    (all rows, three seeds)
     python tests/benchmarks/cmam_unlabelled.py --likeness 1       (from stage 1 of likeness 0; tables of their own)
     python tests/benchmarks/cmam_unlabelled.py --minutes 60       (goes on with what is missing for 60 minutes)
     python tests/benchmarks/cmam_unlabelled.py --table --write    (writes docs/figures/cmam-*.json)
     python tests/benchmarks/cmam_unlabelled.py --ceiling          (the supervised Baseline at several rates)
     python tests/benchmarks/cmam_unlabelled.py --quick            (a few steps of everything: does it run?)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks import runs as shared
from benchmarks.evidence import format_table, write_table
from benchmarks.runs import Runs, quiet, train_and_score

from vireid_lightning.data import CrossModalityDataModule, Market1501, Source, Synthetic
from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.data.synthetic.layouts import plan_market1501
from vireid_lightning.methods import CMAM, Baseline, Optimization, SourceStage, TargetStage
from vireid_lightning.metrics import evaluate
from vireid_lightning.types import VISIBLE

IMAGENET, BASELINE = "ImageNet weights alone", "supervised Baseline"

#: Settings of stage 1 by row, and of stage 2, which starts from the first of stage 1.
FIRST: dict[str, dict[str, Any]] = {
    "stage 1": {},
    "stage 1 without mutual KL": {"kl_weights": (0.0, 0.0)},
    "stage 1 without mutual similarity": {"similarity_weight": 0.0},
    "stage 1 without either mutual term": {"kl_weights": (0.0, 0.0), "similarity_weight": 0.0},
}
SECOND: dict[str, dict[str, Any]] = {
    "stage 2": {},
    "stage 2 without matching": {"matching": False},
    "stage 2, DBSCAN only": {"kmeans_steps": 0, "dbscan_steps": None},
    "stage 2, k-means only": {"dbscan_steps": 0, "kmeans_steps": None},
}
#: The same weights as another row's, or as ImageNet's, scored by another embedding.
BOTH: dict[str, str | None] = {
    "ImageNet weights, both models' embeddings": None,
    "stage 1, both models' embeddings": "stage 1",
    "stage 2, both models' embeddings": "stage 2",
}

#: Learning rates of the supervised Baseline that ``--ceiling`` compares.
CEILING_RATES = (1e-3, 4e-3, 8e-3)

#: The order in which runs are worth most.
ORDER = (
    *("stage 1", "stage 2", IMAGENET, BASELINE, *BOTH),
    *("stage 2 without matching", "stage 2, DBSCAN only", "stage 2, k-means only"),
    *("stage 1 without mutual KL", "stage 1 without mutual similarity", "stage 1 without either mutual term"),
)

#: Order of the table's rows.
ROWS = (IMAGENET, *FIRST, *SECOND, *BOTH, BASELINE)


#: What every clustering logs, and its column.
EPOCH_COLUMNS = {
    "clusters_visible": "clusters, visible",
    "clusters_infrared": "clusters, infrared",
    "outliers_visible": "outliers, visible",
    "outliers_infrared": "outliers, infrared",
    "v_measure_visible": "v-measure, visible",
    "v_measure_infrared": "v-measure, infrared",
    "right_pairs": "right pairs",
}


@dataclass(frozen=True)
class Size:
    """The size of the experiment.

    Attributes:
        difficulty: Of source and target.
        likeness: How much the target's infrared brightness follows the visible one; the source has no infrared images.
        source_people: Number of people of the source.
        target_people: Number of training people of the target.
        test_people: Number of test people of the target.
        images: Images of each person in each camera.
        interval: Steps between two clusterings.
        source_steps: Steps of each of stage 1's two passes.
        target_steps: Steps of each of stage 2's two phases.
        baseline_steps: Steps of the supervised Baseline.
        people_per_batch: Pseudo identities in a batch, with 4 images each in stage 1 and 2 + 2 in stage 2.
        height: Height of the images; they are half as wide.
        eps: Largest Jaccard distance of two neighbours in DBSCAN; the authors' 0.4 leaves 93 % of the images of 64 x 32
            pixels outside of all clusters at first.
        k1: Number of neighbours of the Jaccard distance, the authors'.
        lr: Learning rate of stage 1.
        target_lr: Learning rate of stage 2.
        baseline_lr: Learning rate of the supervised Baseline; ``--ceiling`` compares several.
    """

    difficulty: float = 0.0
    likeness: float = 0.0
    source_people: int = 60
    target_people: int = 60
    test_people: int = 60
    images: int = 3
    interval: int = 25
    source_steps: int = 100
    target_steps: int = 100
    baseline_steps: int = 150
    people_per_batch: int = 8
    height: int = 64
    eps: float = 0.5
    k1: int = 30
    lr: float = 3.5e-4
    target_lr: float = 3.5e-4
    baseline_lr: float = 1e-3


QUICK = {
    "source_people": 16,
    "target_people": 16,
    "test_people": 4,
    "images": 2,
    "interval": 2,
    "k1": 6,
    "eps": 0.5,
} | dict.fromkeys(("source_steps", "target_steps", "baseline_steps"), 2)


def checkpoint(folder: Path, name: str, size: Size, seed: int) -> Path:
    """Return where a run's weights lie; stage 1, which sees no infrared image, has the same for every likeness."""
    runs, size = Runs(folder), replace(size, likeness=0.0) if name in FIRST else size
    return runs.path(f"{name}-{seed}", settings(size, name, seed)).with_suffix(".ckpt")


def open_target(size: Size, folder: Path, difficulty: float) -> Synthetic:
    """Return the target, drawn where it is missing."""
    return Synthetic(
        folder / "images",
        identities=size.target_people,
        val_identities=2,
        test_identities=size.test_people,
        images=size.images,
        difficulty=difficulty,
        likeness=size.likeness,
    )


def train(*, name: str, seed: int, folder: Path, **sizes: Any) -> dict[str, Any]:
    """Train and score one row."""
    quiet()
    seed_everything(seed, verbose=False)
    size = Size(**sizes)
    # The images are the same whatever the seed of weights and batches; the source's cameras are not the target's.
    plan = plan_market1501(train=size.source_people, test=2, images_per_camera=size.images)
    market = folder / "images" / f"market1501-{size.source_people}-{size.images}-{size.difficulty}"
    write_plan(plan, market, workers=1, seed=1, difficulty=size.difficulty)
    target = open_target(size, folder, size.difficulty)
    first = name in FIRST
    source = Source(Market1501(market), identities_per_batch=size.people_per_batch, images_per_identity=4)
    data = CrossModalityDataModule(
        target,
        identities_per_batch=size.people_per_batch,
        images_per_modality=2,
        image_size=(size.height, size.height // 2),
        interpolation="bicubic",
        steps_per_epoch=size.baseline_steps // 5 if name == BASELINE and size.baseline_steps >= 5 else size.interval,
        num_workers=0,
        cache_dir=str(folder / "cache"),
        eval_batch_size=256,
        seed=seed,
        source=source if first else None,
    )
    network: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "weights": "small"}
    if name == BASELINE:
        epochs = max(size.baseline_steps // data.steps_per_epoch, 1)
        rate = Optimization("adam", size.baseline_lr, 5e-4, schedule="cosine", warmup_epochs=1)
        model: Any = Baseline(num_classes=data.num_identities, optimization=rate, **network)
    else:
        epochs, model = build_cmam(name, size, seed, folder, network)
    keep = checkpoint(folder, name, size, seed) if name in (*FIRST, "stage 2") else None
    start = BOTH.get(name)
    if name in FIRST and size.likeness:
        start, keep, epochs = name, None, 0
    if start is not None:
        # A scored model starts from nothing but a checkpoint, which one without training takes by hand.
        model.start_from(str(checkpoint(folder, start, size, seed)))
    return train_and_score(model, data, epochs=epochs, keep=keep)


def build_cmam(name: str, size: Size, seed: int, folder: Path, network: dict[str, Any]) -> tuple[int, CMAM]:
    """Return the number of epochs and the method of a row."""
    share = size.source_steps // 8
    clustering: dict[str, Any] = {"eps": size.eps, "k1": size.k1}
    stage = {"steps": size.source_steps, "warmup_steps": share, "constant_steps": 5 * share, **clustering}
    source = SourceStage(**{**stage, **FIRST[name]}) if name in FIRST else None
    target = None
    if name in SECOND:
        steps = {"dbscan_steps": size.target_steps, "kmeans_steps": size.target_steps, **SECOND[name]}
        # A clusterer alone has the steps of both.
        steps = {key: 2 * size.target_steps if value is None else value for key, value in steps.items()}
        settings = {"warmup_steps": size.target_steps // 8, "clusters": size.target_people, "lr": size.target_lr}
        target = TargetStage(**{**settings, **clustering, **steps})
    passes = 2 * size.source_steps if source else 2 * size.target_steps if target else 0
    model = CMAM(
        source=source,
        target=target,
        embedding="both" if name in BOTH else "rgb",
        optimization=Optimization(lr=size.lr, schedule="constant"),
        init_from=str(checkpoint(folder, "stage 1", size, seed)) if target else None,
        **network,
    )
    return passes // size.interval, model


def do(runs: Runs, size: Size, seeds: int, names: list[str]) -> None:
    """Run what is missing, seed by seed; stage 1 always without a likeness first, whose weights serve them all."""
    for seed in range(seeds):
        for name in names:
            for each in (replace(size, likeness=0.0), size) if name in FIRST and size.likeness else (size,):
                if runs.do(f"{name}-{seed}", settings(each, name, seed), train, folder=runs.folder) is None:
                    return


def do_ceiling(runs: Runs, size: Size, seeds: int) -> None:
    """Run what is missing of the supervised Baseline at several learning rates."""
    for seed in range(seeds):
        for rate in CEILING_RATES:
            each = replace(size, baseline_lr=rate)
            runs.do(f"{BASELINE}-{seed}", settings(each, BASELINE, seed), train, folder=runs.folder)


def ceiling_rows(runs: Runs, size: Size, seeds: int) -> dict[str, list[list[float]]]:
    """Return Rank-1 and mAP of the supervised Baseline by learning rate."""
    found = {}
    for rate in CEILING_RATES:
        each = replace(size, baseline_lr=rate)
        every = [runs.find(f"{BASELINE}-{seed}", settings(each, BASELINE, seed)) for seed in range(seeds)]
        done = [run for run in every if run is not None]
        found[f"{BASELINE}, rate {rate:g}"] = [[run[score] for run in done] for score in ("rank1", "mAP")]
    return found


def settings(size: Size, name: str, seed: int) -> dict[str, Any]:
    """Return what a run is found by; without the likeness where it is 0, as in runs from before there was one."""
    sizes = {key: value for key, value in asdict(size).items() if key != "likeness" or value}
    return {"name": name, "seed": seed, **sizes}


def find(runs: Runs, size: Size, name: str, seeds: int) -> list[dict[str, Any]]:
    """Return a row's finished runs; of stage 1 the scores of this likeness, with the epochs of the training of all."""
    found = []
    for seed in range(seeds):
        run = runs.find(f"{name}-{seed}", settings(size, name, seed))
        if run is not None and name in FIRST and size.likeness:
            trained = runs.find(f"{name}-{seed}", settings(replace(size, likeness=0.0), name, seed))
            run = None if trained is None else {**run, "epochs": trained["epochs"]}
        if run is not None:
            found.append(run)
    return found


def rows(runs: Runs, size: Size, seeds: int) -> dict[str, list[list[float]]]:
    """Return Rank-1 and mAP, and the last clustering's v-measure and outliers, by row."""
    found = {}
    for name in ROWS:
        if done := find(runs, size, name, seeds):
            domain = "source" if name in FIRST else "target"
            last = [run["epochs"][-1] if run["epochs"] else {} for run in done]
            found[name] = [
                *([run[score] for run in done] for score in ("rank1", "mAP")),
                [100 * epoch[f"{domain}/v_measure"] for epoch in last if f"{domain}/v_measure" in epoch],
                [100 * epoch[f"{domain}/outliers_visible"] for epoch in last if f"{domain}/outliers_visible" in epoch],
                [100 * epoch["target/right_pairs"] for epoch in last if "target/right_pairs" in epoch],
            ]
    return found


def epoch_rows(runs: Runs, size: Size, seeds: int) -> dict[str, list[list[float]]]:
    """Return what the clusterings of stages 1 and 2 found, epoch by epoch."""
    found: dict[str, list[list[float]]] = {}
    for name, domain in (("stage 1", "source"), ("stage 2", "target")):
        done = [run["epochs"] for run in find(runs, size, name, seeds)]
        for number in range(min(map(len, done), default=0)):
            found[f"{name}, clustering {number + 1}"] = [
                [
                    (1 if logged.startswith("clusters") else 100) * epochs[number][f"{domain}/{logged}"]
                    for epochs in done
                    if f"{domain}/{logged}" in epochs[number]
                ]
                for logged in EPOCH_COLUMNS
            ]
    return found


def measure_colour(model: Any, *, difficulty: float, size: Size, folder: Path) -> list[float]:
    """Return the mAP of model 1 in colour and in gray, within the visible images and from infrared ones.

    The people and images are those of stage 2's test; a query skips the gallery images of its own camera.
    """
    quiet()
    dataset = open_target(size, folder, difficulty)
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=size.people_per_batch,
        images_per_modality=2,
        image_size=(size.height, size.height // 2),
        interpolation="bicubic",
        num_workers=0,
        eval_batch_size=256,
    )
    data.setup("test")
    model.eval()
    kept: dict[str, list[Tensor]] = {"colour": [], "gray": [], "identity": [], "camera": [], "modality": []}
    with torch.inference_mode():
        for batch in data.test_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)
            for view, images in (("colour", batch["image"]), ("gray", model.gray_view(batch["image"]))):
                kept[view].append(model.embed(images, batch["modality"]))
            for name in ("identity", "camera", "modality"):
                kept[name].append(batch[name])
    every = {name: torch.cat(parts) for name, parts in kept.items()}
    visible = every["modality"] == VISIBLE
    found = []
    for queries in (visible, ~visible):
        for view in ("colour", "gray"):
            query, gallery = (
                tuple(every[name][chosen] for name in (view, "identity", "camera")) for chosen in (queries, visible)
            )
            found.append(evaluate(query, gallery, removal="same-camera").mAP)
    return found


def colour_rows(runs: Runs, size: Size, seeds: int) -> dict[str, list[list[float]]]:
    """Return what colour is worth to ImageNet's weights, at several difficulties, and to stage 1's, as a table."""
    network: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "weights": "small"}
    found: dict[str, list[list[float]]] = {}
    for difficulty in (0.0, 0.25, 0.5, 1.0):
        _, model = build_cmam(IMAGENET, size, 0, runs.folder, network)
        values = measure_colour(model, difficulty=difficulty, size=size, folder=runs.folder)
        found[f"{IMAGENET}, difficulty {difficulty:g}"] = [[value] for value in values]
    for name in FIRST:
        every = []
        for seed in range(seeds):
            if (path := checkpoint(runs.folder, name, size, seed)).is_file():
                _, model = build_cmam(IMAGENET, size, seed, runs.folder, network)
                model.start_from(str(path))
                every.append(measure_colour(model, difficulty=size.difficulty, size=size, folder=runs.folder))
        if every:
            found[f"{name}, difficulty {size.difficulty:g}"] = [list(column) for column in zip(*every)]
    return found


def main(words: list[str] | None = None) -> dict[str, dict[str, list[list[float]]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_run_options(parser, "runs/cmam_unlabelled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=list(ORDER), choices=ORDER, help="rows to run")
    parser.add_argument("--ceiling", action="store_true", help="run the supervised Baseline at several rates instead")
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args(words)
    chosen = {name: getattr(options, name) for name in asdict(Size())}
    size = Size(**{**chosen, **QUICK}) if options.quick else Size(**chosen)
    seeds = 1 if options.quick else options.seeds
    runs = Runs(options.output, options.minutes)
    if not options.table:
        if options.ceiling:
            do_ceiling(runs, size, seeds)
        else:
            do(runs, size, seeds, options.rows)
    about: dict[str, Any] = {
        "command": shared.name_settings("tests/benchmarks/cmam_unlabelled.py", parser, options, without=["rows"]),
        "code": ("tests/benchmarks/cmam_unlabelled.py", "vireid_lightning/clustering", *shared.CODE),
        "settings": asdict(size),
        "folder": shared.find_table_folder(options),
    }
    which = f"cmam-likeness-{size.likeness:g}" if size.likeness else "cmam"
    places = [f"{place}, {view}" for place in ("within visible", "from infrared") for view in ("colour", "gray")]
    tables: dict[str, tuple[Callable[..., dict[str, list[list[float]]]], list[str]]] = {
        "stages": (rows, ["Rank-1", "mAP", "v-measure", "outliers, visible", "right pairs"]),
        "clusters": (epoch_rows, list(EPOCH_COLUMNS.values())),
        "colour": (colour_rows, places),
    }
    if options.ceiling:
        tables = {"ceiling": (ceiling_rows, ["Rank-1", "mAP"])}
    found = {}
    for name, (make_rows, columns) in tables.items():
        runs.take_origin()
        found[name] = make_rows(runs, size, seeds)
        origin = runs.take_origin()
        table = write_table(f"{which}-{name}", columns=["", *columns], rows=found[name], origin=origin, **about)
        print(format_table(table))
    return found


@pytest.mark.benchmark
def test_every_row_is_scored(tmp_path):
    assert set(main(["--quick", "--output", str(tmp_path)])["stages"]) == set(ROWS)
    assert len(main(["--quick", "--ceiling", "--output", str(tmp_path)])["ceiling"]) == len(CEILING_RATES)


if __name__ == "__main__":
    main()
