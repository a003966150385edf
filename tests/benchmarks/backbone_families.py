"""What each family of backbones costs: parameters, width of the embedding, GFLOPs and images per second.

Run by hand: python tests/benchmarks/backbone_families.py [--backbones NAME ...] [--size 256 128] [--batch 8]
[--rounds 2]. All backbones are built as the methods build them, without the last stride, from
random weights. A training step is forward and backward of the mean of the last map, in float32, without an optimiser;
embedding is the forward pass in eval mode. Images per second are those of one core, by the processor time of this
process, which other processes hardly touch; the fastest round counts. GFLOPs are those of one image's forward pass,
matrix products and convolutions alone, a multiplication and an addition being two. Patches of 14 pixels get the nearest
smaller size that they fill.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table
from torch.utils.flop_counter import FlopCounterMode

from vireid_lightning.errors import VIReIDError
from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.modules import Backbone

BACKBONES = [
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "hrnet_w18",
    "vit_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_small_patch14_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_siglip_224",
]


def fitting_size(backbone: Backbone, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, or the nearest smaller one that the backbone's patches fill."""
    try:
        backbone.fit(size)
    except VIReIDError:
        stride = backbone.strides[0]
        size = size[0] // stride * stride, size[1] // stride * stride
        backbone.fit(size)
    return size


def measure(name: str, size: tuple[int, int], count: int, rounds: int) -> list[list[float] | str]:
    """Return the figures of a backbone, a row of the table."""
    torch.manual_seed(0)
    backbone = Backbone(name, pretrained=False)
    size = fitting_size(backbone, size)
    images, modality = torch.randn(count, 3, *size), torch.arange(count) % 2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.eval()(images[:1], modality[:1])
    train = embed = float("inf")
    for number in range(rounds + 1):
        start = time.process_time()
        backbone.train()(images, modality)[-1].mean().backward()
        middle = time.process_time()
        with torch.no_grad():
            backbone.eval()(images, modality)
        end = time.process_time()
        if number:  # the first one warms up
            train, embed = min(train, middle - start), min(embed, end - middle)
    return [
        f"{size[0]} x {size[1]}",
        ", ".join(map(str, backbone.strides[1:])),
        [backbone.channels[-1]],
        [sum(parameter.numel() for parameter in backbone.parameters()) / 1e6],
        [counter.get_total_flops() / 1e9],
        [count / train],
        [count / embed],
    ]


def main(words: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 128))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    add_write_option(parser)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()  # as when a method embeds
    heads = ["Image", "Strides", "Width", "Parameters, M", "GFLOPs", "Training, images/s", "Embedding, images/s"]
    table = write_table(
        "backbones",
        command=name_command(__file__, words),
        code=["tests/benchmarks/backbone_families.py", "vireid_lightning/modules"],
        settings=vars(arguments),
        columns=["Backbone", *heads],
        rows={
            name: measure(name, tuple(arguments.size), arguments.batch, arguments.rounds)
            for name in arguments.backbones
        },
        formats=["", "", ",.0f", *[".1f"] * 4],
        count=None,
        folder=FIGURES if arguments.write else None,
    )
    print(format_table(table))


if __name__ == "__main__":
    main()
