"""What MMGL's pre-training is worth: AGW and MPANet from several starting points, with fewer and fewer labels.

Network: EfficientNet-Lite0 from random weights, from ImageNet's (the extra ``small-weights``), or from MMGL, which saw
the training images, or those of another population (other people, other cameras), and no label. MMGL itself begins from
ImageNet's weights, or from random ones, as the paper's does. Fine-tuning has the labels of 100, 30 and 10 % of the
training persons, the same ones for all starting points. Then the forms of part-aware cycle-contrastive learning (PCC),
whose form the paper leaves open: what each recovers of the stripes of validation persons, and what AGW makes of it with
10 % of the labels. Scores are of persons that no stage has seen (all-search, single-shot, SYSU-MM01's protocol), in per
cent, mean +- standard deviation over seeds of weights, batches, pre-training and labelled persons.

Run: python tests/benchmarks/mmgl_transfer.py [--output runs/mmgl_transfer]    (the whole design)
     python tests/benchmarks/mmgl_transfer.py --minutes 60       (goes on with what is missing for 60 minutes)
     python tests/benchmarks/mmgl_transfer.py --table --write    (writes docs/figures/mmgl-*.json)
     python tests/benchmarks/mmgl_transfer.py --cost             (what pre-training takes beside fine-tuning)
     python tests/benchmarks/mmgl_transfer.py --quick            (a step of everything: does it run?)
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import seed_everything

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks import runs as shared
from benchmarks.evidence import format_table, write_table
from benchmarks.runs import Runs, quiet, train_and_score

from vireid_lightning.data import CrossModalityDataModule, Synthetic
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.methods import AGW, MMGL, MPANet, Optimization

METHODS = {"AGW": AGW, "MPANet": MPANet}

#: Settings of pre-training by name. 36 makes of the mean squared error that of a whole 6 x 6 matrix.
PRETRAINED: dict[str, dict[str, Any]] = {
    "MMGL": {},
    "MMGL from random weights": {"pretrained": False},
    "MMGL on another population": {},
    "without PCC": {"cycle_weight": 0.0},
    "PCC alone": {"permutation_weight": 0.0},
    "PCC as return": {"cycle_form": "return"},
    "PCC from half time": {"cycle_start": 5},
    "PCC as return from half time": {"cycle_form": "return", "cycle_start": 5},
    "PCC at a quarter of the rate": {"lr_factors": {"part_head": 0.25}},
}
OTHER = "MMGL on another population"

#: Starting points that both methods are fine-tuned from with all shares of the labels; the rest: AGW, the least share.
STARTS = ("random weights", "ImageNet", "MMGL", "MMGL from random weights", OTHER)


@dataclass(frozen=True)
class Size:
    """The size of the experiment.

    Attributes:
        difficulty: Of both populations.
        people: Number of training people of each.
        val_people: Number of validation people, whose stripes are recovered.
        test_people: Number of test people.
        images: Images of each person in each camera.
        pretrain_steps: Steps of pre-training, of 16 + 16 images.
        pretrain_lr: Its learning rate, Adam.
        tune_steps: Steps of fine-tuning, of 8 people x (2 + 2) images.
        tune_lr: Its learning rate, Adam.
        height: Height of the images.
        width: Width of the images.
    """

    difficulty: float = 0.0
    people: int = 100
    val_people: int = 20
    test_people: int = 60
    images: int = 3
    pretrain_steps: int = 300
    pretrain_lr: float = 1e-3
    tune_steps: int = 80
    tune_lr: float = 1e-3
    height: int = 96
    width: int = 32


QUICK = {"people": 16, "val_people": 2, "test_people": 2, "images": 2, "pretrain_steps": 1, "tune_steps": 1}
QUICK_SHARES = (1.0, 0.5)


class Labelled(Synthetic):
    """The synthetic dataset with a share of its training identities, drawn by ``draw``."""

    def __init__(self, root: Path, *, share: float, draw: int, **settings: Any) -> None:
        super().__init__(root, **settings)
        everyone = super().identities("train")
        chosen = np.random.default_rng(draw).permutation(everyone)[: round(share * len(everyone))]
        self.chosen = frozenset(chosen.tolist())

    def identities(self, split):
        found = super().identities(split)
        return [identity for identity in found if identity in self.chosen] if split == "train" else found

    def samples(self, split):
        found = super().samples(split)
        return [sample for sample in found if sample.identity in self.chosen] if split == "train" else found


def datamodule(
    size: Size, seed: int, folder: Path, *, steps: int, share: float = 1.0, population: int = 0
) -> CrossModalityDataModule:
    dataset = Labelled(
        folder / "images",
        share=share,
        draw=seed,
        identities=size.people,
        val_identities=size.val_people,
        test_identities=size.test_people,
        images=size.images,
        difficulty=size.difficulty,
        seed=population,
    )
    augmentation = Augmentation(pad=4, erasing=0)
    return CrossModalityDataModule(
        dataset,
        identities_per_batch=8,
        images_per_modality=2,
        image_size=(size.height, size.width),
        visible_transforms=augmentation,
        infrared_transforms=augmentation,
        steps_per_epoch=steps,
        num_workers=0,
        cache_dir=str(folder / "cache"),
        eval_batch_size=256,
        seed=seed,
    )


def split_steps(steps: int) -> tuple[int, int]:
    """Return epochs, ten if there are so many steps, and steps of each."""
    epochs = min(10, steps)
    return epochs, steps // epochs


def checkpoint(folder: Path, name: str, seed: int, size: Size) -> Path:
    """Return where the weights of a pre-training lie."""
    return Runs(folder).path(f"{name}-{seed}", pretrain_settings(name, seed, size)).with_suffix(".ckpt")


def pretrain_settings(name: str, seed: int, size: Size) -> dict[str, Any]:
    unused = ("tune_steps", "tune_lr", "test_people")
    return {"name": name, "seed": seed, **{key: value for key, value in asdict(size).items() if key not in unused}}


def pretrain(*, name: str, seed: int, folder: Path, size: Size, **_: Any) -> dict[str, Any]:
    """Pre-train, keep the checkpoint, and return what is recovered of the validation persons."""
    quiet()
    seed_everything(seed, verbose=False)
    epochs, steps = split_steps(size.pretrain_steps)
    changes = dict(PRETRAINED[name])
    factors = changes.pop("lr_factors", {})
    warmup = 1 if epochs > 1 else 0
    rate = Optimization("adam", size.pretrain_lr, 5e-4, schedule="cosine", warmup_epochs=warmup, lr_factors=factors)
    start = {"pretrained": True, "weights": "small"} if changes.pop("pretrained", True) else {"pretrained": False}
    if "cycle_start" in changes:
        changes["cycle_start"] = min(changes["cycle_start"], epochs - 1)
    model = MMGL(
        backbone="tf_efficientnet_lite0", optimization=rate, **{"permutation_weight": 36.0, **start, **changes}
    )
    target = datamodule(size, seed, folder, steps=steps)
    seen = datamodule(size, seed, folder, steps=steps, population=1) if name == OTHER else target
    result = train_and_score(
        model, seen, epochs=epochs, keep=checkpoint(folder, name, seed, size), validate=seen is target
    )
    if seen is not target:
        result |= train_and_score(model, target, epochs=0, validate=True) | {"epochs": result["epochs"]}
    return result


def tune_settings(method: str, start: str, share: float, seed: int, size: Size) -> dict[str, Any]:
    return {"method": method, "start": start, "share": share, "seed": seed, **asdict(size)}


def tune(*, method: str, start: str, share: float, seed: int, folder: Path, size: Size, **_: Any) -> dict[str, Any]:
    """Fine-tune with the labels of a share of the persons, and score unseen ones."""
    quiet()
    seed_everything(seed, verbose=False)
    epochs, steps = split_steps(size.tune_steps)
    data = datamodule(size, seed, folder, steps=steps, share=share)
    network: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "pretrained": False}
    if start == "ImageNet":
        network |= {"pretrained": True, "weights": "small"}
    elif start in PRETRAINED:
        network |= {"init_from": str(checkpoint(folder, start, seed, size))}
    rate = Optimization("adam", size.tune_lr, 5e-4, schedule="cosine", warmup_epochs=1 if epochs > 1 else 0)
    model = METHODS[method](num_classes=data.num_identities, optimization=rate, **network)
    return train_and_score(model, data, epochs=epochs)


class Design:
    """Which runs there are, seed by seed.

    Args:
        runs: Where runs are kept.
        size: Size of all of them.
        seeds: Number of seeds.
        shares: Shares of the labels, the least last.
    """

    def __init__(self, runs: Runs, size: Size, seeds: int, shares: tuple[float, ...]) -> None:
        self.runs, self.size, self.seeds, self.shares = runs, size, seeds, shares

    def cells(self) -> list[tuple[str, str, float]]:
        """Return method, start and share of every fine-tuning."""
        found = [(method, start, share) for share in self.shares for start in STARTS for method in METHODS]
        return found + [("AGW", start, self.shares[-1]) for start in PRETRAINED if start not in STARTS]

    def do(self) -> None:
        """Run what is missing: the starting points first, then the forms of PCC."""
        for forms in (False, True):
            for seed in range(self.seeds):
                self.do_seed(seed, forms=forms)

    def do_seed(self, seed: int, *, forms: bool) -> None:
        """Run what is missing of a seed's starting points, or of its forms of PCC."""
        common = {"folder": self.runs.folder, "size": self.size}
        for name in PRETRAINED:
            if (name not in STARTS) == forms:
                self.runs.do(f"{name}-{seed}", pretrain_settings(name, seed, self.size), pretrain, **common)
        for method, start, share in self.cells():
            if (start in PRETRAINED and start not in STARTS) != forms:
                continue
            if start in PRETRAINED and not checkpoint(self.runs.folder, start, seed, self.size).is_file():
                continue
            settings = tune_settings(method, start, share, seed, self.size)
            self.runs.do(f"{method}-{start}-{share}-{seed}", settings, tune, **common)

    def scores(self, method: str, start: str, share: float) -> list[list[float]]:
        """Return Rank-1 and mAP of the finished seeds."""
        found = [
            self.runs.find(f"{method}-{start}-{share}-{seed}", tune_settings(method, start, share, seed, self.size))
            for seed in range(self.seeds)
        ]
        return [[run[score] for run in found if run is not None] for score in ("rank1", "mAP")]

    def transfer_rows(self) -> dict[str, list[list[float]]]:
        """Return Rank-1 and mAP by method, start and share."""
        rows = {
            f"{method} from {start}": [cell for share in self.shares for cell in self.scores(method, start, share)]
            for method in METHODS
            for start in STARTS
        }
        return {name: cells for name, cells in rows.items() if any(cells)}

    def pretraining_rows(self) -> dict[str, list[list[float]]]:
        """Return what pre-training recovered, and what AGW makes of it with the fewest labels."""
        rows = {}
        for name in PRETRAINED:
            every = [
                self.runs.find(f"{name}-{seed}", pretrain_settings(name, seed, self.size)) for seed in range(self.seeds)
            ]
            if not (done := [run for run in every if run is not None]):
                continue
            measures = [
                [factor * run[key] for run in done if (key := f"val/{measure}") in run]
                for measure, factor in (
                    ("permutation_accuracy", 100),
                    ("stripe_match", 100),
                    ("stripe_return", 100),
                    ("feature_spread", 100),
                )
            ]
            rows[name] = [*measures, *self.scores("AGW", name, self.shares[-1])]
        return rows


def measure_cost(folder: Path, size: Size) -> dict[str, list[list[float]]]:
    """Run pre-training and both fine-tunings once and return their steps, images of a step and a core's time."""
    ready = datamodule(size, 0, folder, steps=1)
    ready.prepare_data()
    ready.setup("fit")
    common: dict[str, Any] = {"seed": 0, "folder": folder, "size": size}
    taken = {"MMGL, pre-training": (size.pretrain_steps, pretrain(name="MMGL", **common))}
    for method in METHODS:
        taken[f"{method}, fine-tuning"] = size.tune_steps, tune(method=method, start="MMGL", share=1.0, **common)
    return {
        name: [[steps], [32], [run["minutes"]], [60 * run["minutes"] / steps]] for name, (steps, run) in taken.items()
    }


def main(words: list[str] | None = None) -> Design:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_run_options(parser, "runs/mmgl_transfer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.3, 0.1], help="shares of the labels")
    parser.add_argument("--cost", action="store_true", help="measure what pre-training takes, and nothing else")
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args(words)
    chosen = {name: getattr(options, name) for name in asdict(Size())}
    size = Size(**{**chosen, **QUICK}) if options.quick else Size(**chosen)
    shares = QUICK_SHARES if options.quick else tuple(sorted(options.shares, reverse=True))
    design = Design(Runs(options.output, options.minutes), size, 1 if options.quick else options.seeds, shares)
    if not options.table and not options.cost:
        design.do()
    about: dict[str, Any] = {
        "command": shared.name_settings("tests/benchmarks/mmgl_transfer.py", parser, options),
        "code": ("tests/benchmarks/mmgl_transfer.py", *shared.CODE),
        "settings": {**asdict(size), "shares": shares},
        "folder": shared.find_table_folder(options),
    }
    if options.cost:
        columns = ["", "steps", "images of a step", "minutes of a core", "seconds of a step"]
        rows, formats = measure_cost(options.output / "cost", size), [".0f", ".0f", ".1f", ".2f"]
        print(format_table(write_table("mmgl-cost", columns=columns, rows=rows, formats=formats, count=None, **about)))
        return design
    measures = ["orders recovered", "stripe match", "stripe return", "spread x 100"]
    for name, make_rows, columns in (
        (
            "transfer",
            design.transfer_rows,
            [f"{score}, {share:.0%}" for share in shares for score in ("Rank-1", "mAP")],
        ),
        (
            "pretraining",
            design.pretraining_rows,
            [*measures, *(f"AGW's {score}, {shares[-1]:.0%}" for score in ("Rank-1", "mAP"))],
        ),
    ):
        design.runs.take_origin()
        rows, origin = make_rows(), design.runs.take_origin()
        print(format_table(write_table(f"mmgl-{name}", columns=["", *columns], rows=rows, origin=origin, **about)))
    return design


@pytest.mark.benchmark
def test_every_start_and_form_is_scored(tmp_path):
    design = main(["--quick", "--output", str(tmp_path)])
    assert len(design.transfer_rows()) == len(METHODS) * len(STARTS)
    assert set(design.pretraining_rows()) == set(PRETRAINED)
    main(["--quick", "--cost", "--output", str(tmp_path)])
    assert (tmp_path / "tables" / "mmgl-cost.json").is_file()


if __name__ == "__main__":
    main()
