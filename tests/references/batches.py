"""Small training batches as the identity sampler draws them, and a module's loss terms without a Trainer."""

from __future__ import annotations

import torch


def training_batch(identities=3, images_per_modality=2, size=(96, 48), seed=0):
    """Visible images first, the i-th of each half showing the same identity; a block of each image is erased."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.arange(identities).repeat_interleave(images_per_modality)
    count = 2 * len(half)
    images = torch.randn(count, 3, *size, generator=generator)
    # What tells identities apart is a colour: something that both halves share and a network can learn.
    images += torch.randn(identities, 3, 1, 1, generator=generator)[half.repeat(2)]
    erased = torch.zeros(count, *size, dtype=torch.bool)
    for image in range(count):
        top, left = (int(torch.randint(0, side // 2, (), generator=generator)) for side in size)
        erased[image, top : top + size[0] // 4, left : left + size[1] // 3] = True
    return {
        "image": images.masked_fill(erased[:, None], 0.0),
        "identity": half.repeat(2),
        "modality": torch.arange(2).repeat_interleave(count // 2),
        "camera": torch.full((count,), -1),
        "index": torch.arange(count),
        "erased": erased,
    }


def reorder(batch, order):
    return {name: value[order] for name, value in batch.items()}


def loss_terms(module, batch):
    """The unweighted terms of a batch and the weights that the module gives them."""
    return module.losses(batch), module.loss_weights
