"""Writes a checkpoint's network for serving, and compares it with PyTorch before the file is kept."""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.deployment.embedder import Embedder
from vireid_lightning.deployment.parity import Batch, check_images, compare
from vireid_lightning.deployment.tracing import ServedNetwork, quiet, refuse_failure, trace_graph, trace_script
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES, check_modality
from vireid_lightning.version import __version__

Format = Literal["onnx", "torchscript", "pt2", "safetensors"]

#: Suffix of the file of each format.
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2", "safetensors": ".safetensors"}

#: Name under which each format's metadata hold a JSON text.
METADATA = "vireid"
_EXTRA_FILE = f"{METADATA}.json"


@dataclass(frozen=True)
class Exported:
    """A file that was kept.

    Attributes:
        path: The file.
        metadata: What it says of itself.
        differences: The largest difference from PyTorch's embedding, as a share of its length, on each kind of images;
            empty for plain weights.
    """

    path: Path
    metadata: Mapping[str, Any]
    differences: Mapping[str, float]


def export_checkpoint(
    embedder: Embedder,
    output: str | Path,
    format: Format = "onnx",
    *,
    modality: int | None = None,
    half: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write the network of an embedder.

    The network takes ``images`` (batch, height, width, 3) uint8 RGB of the size that the metadata say, and, unless it
    is of one modality, ``modality`` (batch,) int64, 0 visible, 1 infrared; it normalises the images itself and returns
    ``embedding`` (batch, D) float32. Any number of images may be a batch. ``safetensors`` holds the weights alone,
    under the names of the checkpoint.

    Args:
        embedder: The embedder of a checkpoint.
        output: The file, which must not exist.
        format: ``onnx``, ``torchscript``, ``pt2`` (torch.export) or ``safetensors``.
        modality: The one modality that the network is for, 0 or 1; None makes it an input.
        half: Whether the backbone computes, and is stored, in float16.
        images: Image files, folders or patterns, or CSV files that say each image's modality, on which the file is
            compared with PyTorch, beside random and drawn images.

    Raises:
        VIReIDError: The network cannot be traced, a package is missing, or the file's embeddings are not PyTorch's: it
            is then not kept.
    """
    output = Path(output).expanduser()
    if modality is not None:
        check_modality(modality)
    if format not in get_args(Format):
        raise VIReIDError(f"The format '{format}' is unknown; give one of {', '.join(get_args(Format))}.")
    if format == "safetensors" and (modality is not None or half):
        raise VIReIDError("safetensors holds the checkpoint's weights as they are; leave out the modality and half.")
    if output.exists():
        raise VIReIDError(f"{output} exists and is never overwritten; remove it or give another name.")
    batches = [] if format == "safetensors" else check_images(embedder, modality, images)
    network = ServedNetwork(embedder.method, modality=modality, half=half)
    metadata = describe(embedder, format, modality=modality, half=half)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.stem}.{os.getpid()}.part{output.suffix}")
    try:
        serve = _WRITERS[format](network, embedder, unfinished, metadata)
        differences = {} if serve is None else compare(embedder, serve, batches, half=half, origin=str(output))
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return Exported(output, metadata, differences)


def describe(embedder: Embedder, format: Format, *, modality: int | None, half: bool) -> dict[str, Any]:
    """Return what a file says of itself: how to prepare images, what goes in and out, and which weights it has."""
    height, width = embedder.image_size
    inputs: dict[str, Any] = {"images": {"shape": ["batch", height, width, 3], "type": "uint8", "channels": "RGB"}}
    if modality is None:
        inputs["modality"] = {"shape": ["batch"], "type": "int64", "values": dict(zip(MODALITIES, (0, 1)))}
    return {
        "version": __version__,
        "method": type(embedder.method).__name__,
        "backbone": getattr(getattr(embedder.method, "backbone", None), "name", None),
        "weights": embedder.weights,
        "preprocessing": {**embedder.preprocessing, "resizing": "the width first, then the height"},
        "normalisation": "(x / 255 - mean) / std" if format == "safetensors" else "done by the network",
        "modality": "input" if modality is None else MODALITIES[modality],
        "precision": "float16 backbone" if half else "float32",
        "distance": embedder.distance,
        "inputs": inputs,
        "output": {"embedding": {"shape": ["batch", "values"], "type": "float32"}},
    }


#: Computes the embeddings of a batch by a file that was written.
Serve = Callable[[Batch], NDArray[np.float32]]


def _write_onnx(network: ServedNetwork, embedder: Embedder, path: Path, metadata: Mapping[str, Any]) -> Serve:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package, "export")
    graph = trace_graph(network, embedder.image_size)
    names = ["images", "modality"][: 2 if network.modality is None else 1]
    with quiet(), refuse_failure(network, "written as ONNX"):
        # The optimiser of onnxscript 0.7 takes the 1e-12 that GeM adds for 0, which moves embeddings by 3e-4.
        # onnxruntime optimises a graph anyway when it loads it.
        options: dict[str, Any] = {"dynamo": True, "optimize": False, "verbose": False}
        program: Any = torch.onnx.export(graph, (), input_names=names, output_names=["embedding"], **options)
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # names and lines of what was traced, half of a small file
        program.model.metadata_props[METADATA] = json.dumps(metadata)
        program.save(path, external_data=False)
        runtime = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def serve(batch: Batch) -> NDArray[np.float32]:
        given = dict(zip(names, batch))
        return np.asarray(session.run(None, given)[0], dtype=np.float32)

    return serve


def _write_torchscript(network: ServedNetwork, embedder: Embedder, path: Path, metadata: Mapping[str, Any]) -> Serve:
    script = trace_script(network, embedder.image_size)
    with quiet(), refuse_failure(network, "written as TorchScript"):
        torch.jit.save(script, path, _extra_files={_EXTRA_FILE: json.dumps(metadata)})
        loaded = torch.jit.load(path)
    return functools.partial(_run, loaded, network.modality is None)


def _write_pt2(network: ServedNetwork, embedder: Embedder, path: Path, metadata: Mapping[str, Any]) -> Serve:
    graph = trace_graph(network, embedder.image_size)
    with quiet(), refuse_failure(network, "written as a .pt2 file"):
        torch.export.save(graph, path, extra_files={_EXTRA_FILE: json.dumps(metadata)})
        loaded = torch.export.load(path).module()
    return functools.partial(_run, loaded, network.modality is None)


def _write_safetensors(network: ServedNetwork, embedder: Embedder, path: Path, metadata: Mapping[str, Any]) -> None:
    from safetensors.torch import load_file, save_file

    state = {name: tensor.cpu().contiguous().clone() for name, tensor in embedder.method.state_dict().items()}
    save_file(state, path, metadata={METADATA: json.dumps(metadata)})
    written = load_file(path)
    if written.keys() != state.keys() or not all(torch.equal(written[name], state[name]) for name in state):
        raise VIReIDError(f"{path} does not hold the tensors that were written; the disk may be full or broken.")


_WRITERS: dict[str, Callable[[ServedNetwork, Embedder, Path, Mapping[str, Any]], Serve | None]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "pt2": _write_pt2,
    "safetensors": _write_safetensors,
}


def _run(loaded: Callable[..., Tensor], with_modality: bool, batch: Batch) -> NDArray[np.float32]:
    tensors = [torch.from_numpy(values) for values in batch[: 2 if with_modality else 1]]
    with torch.no_grad():
        return loaded(*tensors).numpy()


def _require(package: str, extra: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise VIReIDError(
            f"This format needs {package}, which is not installed: `pip install vireid-lightning[{extra}]`."
        ) from error
