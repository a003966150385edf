"""What extracting, clustering and matching cost CMAM beside an epoch of steps, at SYSU-MM01's 34,167 training images.

Run by hand: OMP_NUM_THREADS=1 python tests/benchmarks/cmam_epoch.py [--precision bfloat16] [--rounds 5].

Clustering and matching of stage 2 run at that size, on planted clusters of 395 identities in 4,096 values, the z of
both models that CMAM clusters. A step and an extraction (both models, each image and its mirror image) run on a few
images of 384 x 128 with ResNet-50 and are extrapolated: to 400 steps of 128 images, and to all images. Seconds are the
processor's.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
import torch
from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table
from method_costs import build_stage, take_step
from references.batches import training_batch

from vireid_lightning.clustering import update_memory
from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.methods.cmam.clusters import cluster
from vireid_lightning.methods.cmam.schedule import TargetStage

#: Visible and infrared training images of SYSU-MM01's 395 identities.
IMAGES = (22_258, 11_909)
STEPS, BATCH = 400, 128


def plant(images: tuple[int, int], identities: int, values: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features around a centre of each identity and modality, and the modalities; half of a centre is shared."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(identities, values, generator=generator)
    features = []
    for count in images:
        centres = shared + torch.randn(identities, values, generator=generator)
        drawn = centres[torch.arange(count) % identities]
        features.append(drawn.add_(torch.randn(count, values, generator=generator), alpha=2))
    modality = torch.arange(2).repeat_interleave(torch.tensor(images))
    return torch.cat(features), modality


def time_once(function, *arguments):
    """Return the seconds of a call, and what it returns."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def time_network(backbone: str, size: tuple[int, int], precision: str, rounds: int) -> tuple[float, float]:
    """Return the seconds of an image in a step and in an extraction, medians of rounds in which both take turns."""
    batch = training_batch(2, 4, size=size)
    module = build_stage("target", backbone, 395)
    images, modality = batch["image"], batch["modality"]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            take_step(module.train(), batch)

    def extract():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            module.eval().features(images, modality)

    step(), extract()
    seconds = [(time_once(step)[0], time_once(extract)[0]) for _ in range(rounds)]
    return tuple(median(column) / len(images) for column in zip(*seconds))


def compare(options: argparse.Namespace, images: tuple[int, int] = IMAGES, values: int = 4096) -> dict[str, float]:
    """Return the seconds of an epoch's steps, and of each part beside them."""
    identities = min(395, images[1] // 10)
    stage = TargetStage(clusters=min(400, identities))
    features, modality = plant(images, identities, values)
    seconds = {}
    for clusterer in ("dbscan", "kmeans"):
        find = partial(cluster, matching=True, seed=0)
        taken, found = time_once(find, features, modality, stage, clusterer)
        seconds[f"clustering and matching, {clusterer}"] = taken
        print(f"{clusterer}: {found.count} clusters of {identities} planted, {taken:,.1f} s", flush=True)
    del features
    prototypes, drawn = torch.eye(identities, values // 2), torch.randn(BATCH, values // 2)
    labels = torch.arange(BATCH) % 8
    update = median(time_once(update_memory, prototypes, drawn, labels)[0] for _ in range(20))
    seconds["memory of both models"] = 2 * STEPS * update
    step, extraction = time_network(options.backbone, tuple(options.size), options.precision, options.rounds)
    seconds["extraction"] = sum(images) * extraction
    return {f"{STEPS} steps of {BATCH} images": STEPS * BATCH * step, **seconds}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 128))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5, help="steps and extractions (default: %(default)s)")
    add_write_option(parser)
    options = parser.parse_args(words)
    keep_freed_memory()  # as in training
    seconds = compare(options)
    epoch = next(iter(seconds.values()))
    table = write_table(
        "cmam-epoch",
        command="OMP_NUM_THREADS=1 " + name_command(__file__, words),
        code=["tests/benchmarks/cmam_epoch.py", "vireid_lightning/clustering", "vireid_lightning/methods/cmam"],
        settings=vars(options),
        columns=["Part", "Processor time, s", "Of the steps"],
        rows={name: [[part], [part / epoch]] for name, part in seconds.items()},
        formats=[",.0f", ".1%"],
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))


@pytest.mark.benchmark
def test_shares_are_printed():
    options = argparse.Namespace(backbone="resnet18", size=(96, 48), precision="float32", rounds=1)
    assert set(compare(options, images=(400, 300), values=64)) > {"extraction", "memory of both models"}


if __name__ == "__main__":
    main()
