"""How far every method's exported network differs from PyTorch, and the sizes of the files.

Random weights, whose two streams and normalisations differ; random images and drawn pedestrians of both modalities. Run
by hand: ``python tests/benchmarks/export_parity.py [--backbone resnet18] [--format onnx pt2]``; each file is written
with the backbone in float32 and in float16 (``--half``). The format
``compile`` is no file: ``torch.compile`` with its default backend, as one graph, against the network as it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table

from vireid_lightning import methods
from vireid_lightning.data.images.resizing import RESIZERS
from vireid_lightning.deployment import Embedder, export_checkpoint
from vireid_lightning.deployment.exporting import SUFFIXES
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import ReIDModule

METHODS = [
    item
    for name in methods.__all__
    if isinstance(item := getattr(methods, name), type) and issubclass(item, ReIDModule) and item is not ReIDModule
]


def build(method, backbone, image_size):
    """Return an embedder of a method whose statistics are not those of a fresh network."""
    torch.manual_seed(0)
    module = method(backbone=backbone, pretrained=False)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    for name, parameter in module.named_parameters():
        if ".infrared." in name:
            parameter.data += 0.01 * torch.randn(parameter.shape)
    size = {"image_size": list(image_size), "interpolation": "bilinear", "resizer": RESIZERS["bilinear"]}
    return Embedder(module, size)


def measure(embedder, kind, half, folder):
    """Return the largest difference, as a share of an embedding's length, and the file's size in MiB."""
    exported = export_checkpoint(embedder, Path(folder) / f"network{SUFFIXES[kind]}", kind, half=half)
    size = exported.path.stat().st_size / 2**20
    exported.path.unlink()
    return max(exported.differences.values()), size


def measure_compiled(embedder):
    """Return the largest difference that compiling ``embed`` makes, as a share of an embedding's length."""
    module = embedder.method.eval()
    torch._dynamo.reset()
    compiled = torch.compile(module.embed, fullgraph=True)
    images = torch.randn(4, 3, *embedder.preprocessing["image_size"])
    with torch.inference_mode():
        differences = [
            (compiled(images, modality) - module.embed(images, modality)).norm(dim=1).max().item()
            for modality in (torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64))
        ]
    return max(differences)


@pytest.mark.benchmark
@pytest.mark.parametrize("method", METHODS)
def test_exported_networks_differ_by_rounding_alone(method, tmp_path):
    pytest.importorskip("onnxruntime")
    assert measure(build(method, "test_resnet", (64, 32)), "onnx", False, tmp_path)[0] < 1e-5


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", help="timm's name (default: %(default)s)")
    parser.add_argument("--image-size", type=int, nargs=2, default=(288, 144), help="height and width")
    parser.add_argument(
        "--format", nargs="+", default=["onnx"], choices=[*SUFFIXES, "compile"], help="formats (default: onnx)"
    )
    add_write_option(parser)
    arguments = parser.parse_args(words)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            embedder = build(method, arguments.backbone, arguments.image_size)
            rows[method.__name__] = []
            for kind in arguments.format:
                for half in (False, True) if kind != "compile" else ():
                    try:
                        difference, size = measure(embedder, kind, half, folder)
                    except VIReIDError as error:
                        rows[method.__name__] += [str(error), []]
                    else:
                        rows[method.__name__] += [[difference], [size]]
                if kind == "compile":
                    rows[method.__name__].append([measure_compiled(embedder)])
    columns, formats = ["Method"], []
    for kind in arguments.format:
        ends = ("float32", "`--half`") if kind != "compile" else ("",)
        columns += [title for end in ends for title in (f"{kind} {end}".strip(), *(["MiB"] if end else []))]
        formats += [form for end in ends for form in (".1e", *([".1f"] if end else []))]
    table = write_table(
        f"export-parity-{'-'.join(arguments.format)}",
        command=name_command(__file__, words),
        code=["tests/benchmarks/export_parity.py", "vireid_lightning/deployment", "vireid_lightning/methods"],
        settings=vars(arguments),
        columns=columns,
        rows=rows,
        formats=formats,
        count=None,
        folder=FIGURES if arguments.write else None,
    )
    print(format_table(table))


if __name__ == "__main__":
    main()
