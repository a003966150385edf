"""What each method costs beside its bare backbone: parameters, embedding, GFLOPs and images per second of training.

Run by hand: python tests/benchmarks/method_costs.py [--backbone resnet50] [--size 288 144] [--rounds 3]. One training
step is forward and backward of the whole loss, on the CPU in float32, with random weights and one batch of P identities
x (K visible + K infrared) images (the same for CMAM's first stage, though its own batches are visible; clustering is
not in its steps). All methods see the same batch and take turns in each round; the fastest round counts, since other
processes can only slow it down. GFLOPs are those of matrix products and convolutions, as torch counts them, a
multiplication and an addition being two.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table
from references.batches import training_batch

from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, DCLNet, MPANet
from vireid_lightning.methods.cmam.schedule import Phase
from vireid_lightning.modules import Backbone


class BareBackbone(torch.nn.Module):
    """The one-stream backbone and the mean of its last map."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = Backbone(backbone, pretrained=False)

    def embed(self, images, modality):
        return self.backbone.features(images, modality)[-1].mean((2, 3))

    def losses(self, batch):
        return {"mean": self.embed(batch["image"], batch["modality"]).mean()}


def build_stage(domain, backbone, clusters):
    """Build CMAM in the midst of a stage, with given clusters: what is measured is a step between two clusterings."""
    module = CMAM(backbone=backbone, pretrained=False)
    stage = {"source": module.source, "target": module.target}[domain]
    times = {"first_epoch": 0, "epochs": 1, "steps": 1, "constant_steps": 1}
    module.enter(Phase(stage, "kmeans", **times, lr=3.5e-4, kl_weight=0.1))
    width = module.backbone.channels[-1]
    module._prototypes = [torch.nn.functional.normalize(torch.randn(clusters, width)) for _ in range(2)]
    module._classifiers = [torch.nn.Parameter(torch.randn(clusters, width)) for _ in range(2)]
    return module


def build_modules(backbone, identities):
    """Name -> module, the bare backbone first."""
    modules = {"bare backbone": BareBackbone(backbone)}
    for method in (Baseline, AGW, MPANet, DCLNet):
        modules[method.__name__] = method(num_classes=identities, backbone=backbone, pretrained=False)
    modules[MMGL.__name__] = MMGL(backbone=backbone)
    for number, domain in ((1, "source"), (2, "target")):
        modules[f"CMAM, stage {number}"] = build_stage(domain, backbone, identities)
    return modules


def take_step(module, batch):
    module.zero_grad(set_to_none=True)
    weights = getattr(module, "loss_weights", {})
    sum(weights.get(name, 1.0) * term for name, term in module.losses(batch).items()).backward()


def measure_costs(backbone, identities, batch, rounds):
    """One dictionary of figures for each module."""
    images = len(batch["image"])
    modules = build_modules(backbone, identities)
    figures = {}
    for name, module in modules.items():
        with FlopCounterMode(display=False) as counter:  # this is the warm-up too
            take_step(module, batch)
        with torch.no_grad():
            length = module.eval().embed(batch["image"][:2], batch["modality"][:2]).shape[1]
        module.train()
        figures[name] = {
            "parameters": sum(p.numel() for p in module.parameters()) / 1e6,
            "embedding": length,
            "gflops": counter.get_total_flops() / images / 1e9,
            "seconds": [],
        }
    for _ in range(rounds):
        for name, module in modules.items():
            start = time.perf_counter()
            take_step(module, batch)
            figures[name]["seconds"].append(time.perf_counter() - start)
            module.zero_grad(set_to_none=True)
    for figure in figures.values():
        figure["speed"] = images / min(figure.pop("seconds"))
    return figures


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", nargs=2, type=int, default=[288, 144], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--identities-per-batch", type=int, default=4)
    parser.add_argument("--images-per-modality", type=int, default=2)
    parser.add_argument("--identities", type=int, default=395, help="training identities, as in SYSU-MM01")
    parser.add_argument("--rounds", type=int, default=3)
    add_write_option(parser)
    options = parser.parse_args(words)
    keep_freed_memory()  # as in training
    drawn = training_batch(options.identities_per_batch, options.images_per_modality, size=tuple(options.size))
    print(
        f"{options.backbone}, {options.size[0]} x {options.size[1]}, batch of {len(drawn['image'])}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, fastest of {options.rounds} rounds\n"
    )
    figures = measure_costs(options.backbone, options.identities, drawn, options.rounds)
    bare = figures["bare backbone"]["speed"]
    heads = ["Parameters, M", "Embedding", "Training GFLOPs / image", "Images / s", "of the bare backbone"]
    table = write_table(
        "method-costs",
        command=name_command(__file__, words),
        code=["tests/benchmarks/method_costs.py", "vireid_lightning/methods", "vireid_lightning/modules"],
        settings=vars(options),
        columns=["Method", *heads],
        rows={
            name: [[each["parameters"]], [each["embedding"]], [each["gflops"]], [each["speed"]], [each["speed"] / bare]]
            for name, each in figures.items()
        },
        formats=[".1f", ",.0f", ".1f", ".2f", ".0%"],
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))
    return table


@pytest.mark.benchmark
def test_every_method_is_a_row():
    words = ["--backbone", "resnet18", "--size", "96", "48", "--identities", "10", "--rounds", "1"]
    assert {"bare backbone", "CMAM, stage 2"} < set(main([*words, "--identities-per-batch", "2"])["rows"])


if __name__ == "__main__":
    main()
