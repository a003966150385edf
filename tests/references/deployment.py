"""Checkpoints of tiny networks whose streams differ, as training writes them."""

from __future__ import annotations

import torch

from vireid_lightning.data.images.resizing import RESIZERS
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

SIZE = (64, 32)


def write_checkpoint(path, method, interpolation="bilinear", **more):
    """Write what a run's checkpoint holds of a method and of how its images are prepared."""
    checkpoint = {
        "pytorch-lightning_version": "2.6.0", "epoch": 0, "global_step": 0, "state_dict": method.state_dict(),
    }  # fmt: skip
    method.on_save_checkpoint(checkpoint)
    checkpoint["vireid"]["preprocessing"] = {
        "image_size": list(SIZE),
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": interpolation,
        "resizer": RESIZERS[interpolation],
        **more,
    }
    torch.save(checkpoint, path)
    return path


def make_streams_differ(method):
    """Give the normalisations statistics as training does, and the two streams weights of their own."""
    generator = torch.Generator().manual_seed(1)
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in method.named_parameters():
        if ".infrared." in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return method.eval()
