"""Write a checkpoint's network as a file for serving, after comparing it with PyTorch.

The network takes images as bytes, (batch, height, width, 3) RGB, and a modality for each, 0 visible or 1 infrared, and
returns embeddings. How images are prepared stands in the file's metadata. ONNX needs the packages of
`pip install vireid-lightning[export]`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.networks import add_network_arguments, open_embedder, require_new

_FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2", "safetensors": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the network, a file that `lightning fit` wrote")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="onnx",
        help="onnx, torchscript, pt2 (torch.export), or safetensors, which holds weights alone (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="file to write, never overwritten (default: beside the checkpoint)"
    )
    parser.add_argument(
        "--modality", help="visible or infrared: a network for one modality, without the other's parts (default: both)"
    )
    parser.add_argument("--half", action="store_true", help="store the backbone, and compute it, in float16")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images on which the file is compared with PyTorch too: files, folders, patterns or CSV files",
    )
    add_network_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export the network, and print how far it differs from PyTorch."""
    suffix = _FORMATS[arguments.format]
    output = require_new(arguments.output or Path(arguments.checkpoint).with_suffix(suffix), "--output", suffix)
    from vireid_lightning.deployment import export_checkpoint
    from vireid_lightning.deployment.image_lists import parse_modality

    modality = None if arguments.modality is None else parse_modality(arguments.modality)
    embedder = open_embedder(arguments.checkpoint, arguments)
    exported = export_checkpoint(
        embedder, output, arguments.format, modality=modality, half=arguments.half, images=arguments.images
    )
    for name, difference in exported.differences.items():
        print(f"Largest difference from PyTorch on the {name} images: {difference:.1e} of an embedding's length")
    print(f"Written to {exported.path} ({exported.path.stat().st_size / 2**20:.1f} MiB)")
