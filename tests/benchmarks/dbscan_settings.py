"""What DBSCAN makes of drawn people with ImageNet's weights, by image size, ``eps`` and ``k1``.

CMAM begins with these clusters. Visible images of 60 drawn people, in four cameras, EfficientNet-Lite0 from the extra
``small-weights``; no training.

Run: python tests/benchmarks/dbscan_settings.py [--write]    (two minutes)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import v_measure_score

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table

from vireid_lightning.clustering import dbscan_labels
from vireid_lightning.data import CrossModalityDataModule, Synthetic
from vireid_lightning.methods import CMAM, TargetStage
from vireid_lightning.types import VISIBLE


def embed(folder: Path, *, people: int, images: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings and identities of the visible images of unseen people."""
    data = CrossModalityDataModule(
        Synthetic(
            folder / "images",
            identities=2,
            val_identities=2,
            test_identities=people,
            images=images,
            difficulty=0.0,
        ),
        identities_per_batch=2,
        images_per_modality=2,
        image_size=(height, height // 2),
        interpolation="bicubic",
        num_workers=0,
        eval_batch_size=256,
    )
    data.setup("test")
    model = CMAM(source=None, target=TargetStage(), backbone="tf_efficientnet_lite0", weights="small").eval()
    features, identities = [], []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)
            visible = batch["modality"] == VISIBLE
            features.append(model.embed(batch["image"][visible], batch["modality"][visible]))
            identities.append(batch["identity"][visible])
    return torch.nn.functional.normalize(torch.cat(features)), torch.cat(identities)


def measure(people: int, images: int, heights: list[int]) -> dict[str, list[list[float]]]:
    """Return clusters, outliers and v-measure without these, by image size, k1 and eps."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for height in heights:
            features, identities = embed(Path(folder), people=people, images=images, height=height)
            for k1 in (30, 20, 12):
                for eps in (0.4, 0.5, 0.6):
                    labels = dbscan_labels(features, eps=eps, k1=k1)
                    kept = labels >= 0
                    agreement = [100 * v_measure_score(identities[kept], labels[kept])] if kept.any() else []
                    clusters, outliers = float(labels.max() + 1), 100 * float((~kept).float().mean())
                    rows[f"{height} x {height // 2}, k1 {k1}, eps {eps}"] = [[clusters], [outliers], agreement]
    return rows


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=60, help="number of people")
    parser.add_argument("--images", type=int, default=5, help="images of each person in each camera")
    parser.add_argument("--heights", type=int, nargs="+", default=[64, 96, 128], help="heights of the images")
    add_write_option(parser)
    options = parser.parse_args(words)
    table = write_table(
        "dbscan-settings",
        command=name_command(__file__, words),
        code=["tests/benchmarks/dbscan_settings.py", "vireid_lightning/clustering", "vireid_lightning/data"],
        settings={"people": options.people, "images": options.images, "heights": options.heights},
        columns=["", "clusters", "outliers", "v-measure"],
        rows=measure(options.people, options.images, options.heights),
        formats=[".0f", ".1f", ".1f"],
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))
    return table


@pytest.mark.benchmark
def test_every_setting_is_measured():
    assert len(main(["--people", "4", "--images", "3", "--heights", "64"])["rows"]) == 9


if __name__ == "__main__":
    main()
