"""Images per second that one core loads for training, beside Pillow and torchvision with the same steps.

Run by hand: OMP_NUM_THREADS=1 python tests/benchmarks/loading_speed.py [--source 128 64] [--rounds 5].

Drawn pedestrians, half of them infrared, are resized to 384 x 128, flipped, padded, cropped, erased and put into
batches of 32, as MPANet's authors do. Their way ends with normalised floats for each image, this package's with bytes,
which the datamodule normalises batch by batch on the device; a second row of ours has that too, on the CPU. All ways
take turns. Seconds are the processor's, so that other programs disturb them little; a ratio is the median over rounds
of the ratios within a round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pytest
import torch
from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table
from PIL import Image
from references.authors_transforms import authors_steps
from torch.utils.data import default_collate
from torchvision import transforms

from vireid_lightning.data import Synthetic
from vireid_lightning.data.images.augmentation import PIPELINES, TrainTransform
from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.data.images.torch_datasets import TrainingImages
from vireid_lightning.data.loading import normalize
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

SIZE, BATCH = (384, 128), 32

THEIRS = "Pillow and torchvision, from files"
HELD = "Pillow and torchvision, from resized images in memory"


def load_ours(images, samples, identities, *, normalized):
    """Return what loads all batches with this package."""
    dataset = TrainingImages(samples, images, identities, [TrainTransform(PIPELINES["mpanet"], SIZE)] * 2)

    def load():
        for start in range(0, len(samples), BATCH):
            batch = default_collate([dataset[Draw(row, row)] for row in range(start, min(start + BATCH, len(samples)))])
            if normalized:
                normalize(batch["image"], batch["erased"])

    return load


def load_theirs(paths, held=None):
    """Return what loads all batches as MPANet's authors do."""
    first, last = authors_steps("mpanet", SIZE)
    float_steps = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD), *last]
    resize = [] if held else [transforms.Resize(SIZE)]
    steps = transforms.Compose([*resize, *first, *float_steps])

    def load():
        for start in range(0, len(paths), BATCH):
            rows = range(start, min(start + BATCH, len(paths)))
            opened = [held[row] if held else Image.open(paths[row]).convert("RGB") for row in rows]
            torch.stack([steps(image) for image in opened])

    return load


def compare(source: tuple[int, int], identities: int, rounds: int) -> dict[str, list[list[float] | str]]:
    """Return each way's images per second, and its ratios to Pillow and torchvision, from files and from memory."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Synthetic(folder, identities=identities, image_size=source, train="train")
        samples, known = dataset.samples("train"), dataset.identities("train")
        names = [sample.path for sample in samples]
        paths = [dataset.root / name for name in names]
        ways: dict[str, Callable[[], None]] = {THEIRS: load_theirs(paths)}
        for kind in ("bilinear", "opencv-bilinear"):
            files = ImageFiles(dataset.root, names, SIZE, kind)
            for where, images in (("files", files), ("cache", ImageCache(Path(folder) / "cache", files).build())):
                for normalized in (False, True) if where == "files" or kind == "bilinear" else ():
                    end = ", normalised" if normalized else ""
                    label = "the cache" if where == "cache" else f"files, {kind}"
                    ways[f"from {label}{end}"] = load_ours(images, samples, known, normalized=normalized)
            if kind == "bilinear":
                resized = [Image.fromarray(np.array(files[row])) for row in range(len(names))]
                ways[HELD] = load_theirs(paths, resized)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for load in ways.values():
            load()
        for _ in range(rounds):
            for name, load in ways.items():
                start = time.process_time()
                load()
                seconds[name].append(time.process_time() - start)
    return {
        name: [
            [len(names) / median(taken)],
            *([median(theirs / ours for theirs, ours in zip(seconds[base], taken))] for base in (THEIRS, HELD)),
        ]
        for name, taken in seconds.items()
    }


@pytest.mark.benchmark
def test_files_and_cache_are_faster_than_pillow_and_torchvision():
    rows = compare((128, 64), 16, 5)
    assert rows["from files, bilinear"][1][0] > 1.5
    assert rows["from the cache"][1][0] > 5


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=int, nargs=2, default=(128, 64), help="height and width of the files' images")
    parser.add_argument("--identities", type=int, default=24, help="persons drawn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    add_write_option(parser)
    options = parser.parse_args(words)
    table = write_table(
        f"loading-{options.source[0]}x{options.source[1]}",
        command="OMP_NUM_THREADS=1 " + name_command(__file__, words),
        code=["tests/benchmarks/loading_speed.py", "vireid_lightning/data/images", "vireid_lightning/data/loading.py"],
        settings=vars(options),
        columns=["One core", "Images / s", "To Pillow, from files", "To Pillow, from memory"],
        rows=compare(tuple(options.source), options.identities, options.rounds),
        formats=[",.0f", ".2f", ".2f"],
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))


if __name__ == "__main__":
    main()
