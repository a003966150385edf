"""A method's network as a graph that needs no method: from bytes of images to embeddings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.modules import Backbone, PerModality
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

#: Images of the batch that a graph is traced with; one or none would be taken for a constant.
_TRACED_IMAGES = 3


class ServedNetwork(nn.Module):
    """Normalises images and embeds them.

    Args:
        method: The method; copied, without its heads.
        modality: The one modality that is embedded: parts of the network that exist for the other are left out; None
            makes it an input.
        half: Whether the backbone computes in float16; pooling, neck and what follows stay in float32.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, method: ReIDModule, *, modality: int | None = None, half: bool = False) -> None:
        super().__init__()
        method = copy.deepcopy(method).cpu().eval().requires_grad_(False)
        method._jit_is_scripting = (
            True  # torch.jit looks at every attribute, and Lightning's `trainer` raises otherwise
        )
        for name, _ in list(method.named_children()):
            if method.heads and f"{name}.".startswith(method.heads):
                delattr(method, name)  # what training alone needs, such as classifiers of the training identities
        if modality is not None:
            _keep_modality(method, modality)
        if half:
            _halve(method)
        self.method, self.modality, self.half_precision = method, modality, half
        # Not `mean` and `std`: an ONNX graph names the results of its operations by the operations.
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor, modality: Tensor | None = None) -> Tensor:
        """Return embeddings (B, D) float32.

        Args:
            images: (B, height, width, 3) uint8, RGB, of the network's size.
            modality: (B,) int64, 0 visible, 1 infrared; left out where the network embeds one.
        """
        x = images.permute(0, 3, 1, 2).to(torch.float32).div(255).sub(self.pixel_mean).div(self.pixel_std)
        if modality is None:
            modality = torch.full((images.shape[0],), self.modality or 0, dtype=torch.int64)
        return self.method.embed(x, modality).float()

    def example(self, image_size: tuple[int, int], count: int = _TRACED_IMAGES) -> tuple[Tensor, ...]:
        """Return inputs of random images, both modalities among them."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, *image_size, 3), dtype=torch.uint8, generator=generator)
        return (images,) if self.modality is not None else (images, torch.arange(count) % 2)


def trace_graph(network: ServedNetwork, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Return a network as a graph for batches of any size.

    Raises:
        VIReIDError: The network cannot be traced.
    """
    batch = torch.export.Dim("batch")
    shapes: dict[str, Any] = {"images": {0: batch}, "modality": {0: batch}}
    inputs = network.example(image_size)
    with refuse_failure(network), quiet():
        names = ("images", "modality")[: len(inputs)]
        program = torch.export.export(network, inputs, dynamic_shapes={name: shapes[name] for name in names})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code with the folders of this machine
    return program


def trace_script(network: ServedNetwork, image_size: tuple[int, int]) -> Any:
    """Return a network as TorchScript for batches of any size.

    Raises:
        VIReIDError: The network cannot be traced.
    """
    with refuse_failure(network), quiet():
        return torch.jit.trace(network, network.example(image_size), check_trace=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch's exporters say of themselves: what they made is compared before it is kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def refuse_failure(network: ServedNetwork, what: str = "traced") -> Iterator[None]:
    """Tell in one sentence why a network cannot be traced, or otherwise written.

    Raises:
        VIReIDError: Instead of whatever the exporter raises.
    """
    try:
        with torch.no_grad():
            yield
    except VIReIDError:
        raise
    except Exception as error:  # the exporters raise dozens of kinds, most of them private
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")
        raise VIReIDError(
            f"The network of {type(network.method).__name__} cannot be {what} ({type(error).__name__}: "
            f"{reason.rstrip('.')[:300]}); its embed must be tensor operations that depend on no tensor's value, or "
            "write its weights with --format safetensors."
        ) from error


class _OwnStream(nn.Module):
    """The part of one modality, in place of a part for each."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, rows: object = None) -> Tensor:
        """Return what the part makes of ``x``."""
        result: Tensor = self.part(x)
        return result


def _keep_modality(method: nn.Module, modality: int) -> None:
    """Replace the parts that exist per modality by those of one."""
    for module in list(method.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, PerModality):
                setattr(module, name, _OwnStream(child.infrared if modality else child.visible))


def _halve(method: nn.Module) -> None:
    """Let the backbones' stages compute in float16, and what follows widen its inputs to its own float32."""
    stages = [stage for module in method.modules() if isinstance(module, Backbone) for stage in module.stages]
    if not stages:
        raise VIReIDError(
            f"{type(method).__name__} has no Backbone, so that nothing says which part may compute in float16; leave "
            "out --half."
        )
    inside = {id(module) for stage in stages for module in stage.modules()}
    for stage in stages:
        stage.half()
        stage.register_forward_pre_hook(_cast_to_half)
    for module in method.modules():
        leaf = next(module.children(), None) is None
        if leaf and id(module) not in inside and next(module.parameters(), None) is not None:
            module.register_forward_pre_hook(_cast_to_float)


def _cast_to_half(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _cast(inputs, torch.float16)


def _cast_to_float(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _cast(inputs, torch.float32)


def _cast(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs
    )
