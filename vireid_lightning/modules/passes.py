"""A backbone's forward pass in less memory: parts that are computed again in backward, and a batch in several passes.

Both keep what goes in and what comes out, and run forward a second time when a gradient arrives. Random draws and
autocast are those of the first time (:mod:`torch.utils.checkpoint`), and running statistics move once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vireid_lightning.modules.modality_rows import ModalityRows

_Result = TypeVar("_Result")


@contextmanager
def hold_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch normalisations in training normalise as ever, but leave their running statistics as they are."""
    norms = [part for part in module.modules() if part.training and "running_mean" in part._buffers]
    held = [norm._buffers for norm in norms]
    # Copies move in their place: without any, autograd would save other tensors than the first time.
    for norm, buffers in zip(norms, held):
        norm._buffers = {name: None if each is None else each.clone() for name, each in buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, held):
            norm._buffers = buffers


def recompute(module: nn.Module, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return what a function returns, keep nothing of what happens in it, and call it again in backward.

    Args:
        module: The module whose layers the function calls.
        function: The function; it must not change its arguments.
        arguments: Its arguments.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), hold_statistics(module)

    result: _Result = checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts)
    return result


def run_in_passes(
    module: nn.Module,
    run: Callable[[Tensor, ModalityRows], tuple[list[Tensor], Tensor | None]],
    images: Tensor,
    rows: ModalityRows,
    images_per_pass: int,
) -> tuple[list[Tensor], Tensor | None]:
    """Return the maps and the class token of a batch that goes through a backbone a few images at a time.

    What comes out is that of the whole batch, so that losses of it, and their gradients, are as well; in backward each
    pass is computed again when its maps' gradients are there (GradCache: Gao et al., RepL4NLP 2021). Batch
    normalisation in training takes the statistics of each pass.

    Args:
        module: The backbone.
        run: Function from images and their rows to maps and class token, if any.
        images: (B, 3, H, W).
        rows: Where each modality is.
        images_per_pass: Largest number of images in a pass.
    """
    passes = -(-len(images) // images_per_pass)
    counts, maps, tokens = [], [], []
    for number in range(passes):
        visible, infrared, own = rows.share(number, passes)
        found, token = recompute(module, run, torch.cat([images[visible], images[infrared]]), own)
        counts.append(own.counts[0])
        maps.append(found)
        tokens.append(token)
    first = [_join([each[part] for each in maps], counts, rows) for part in range(len(maps[0]))]
    return first, None if tokens[0] is None else _join([each for each in tokens if each is not None], counts, rows)


def _join(parts: Sequence[Tensor], counts: Sequence[int], rows: ModalityRows) -> Tensor:
    """Return the passes' outputs in the batch's order; each has its visible images first, ``counts`` of them."""
    halves = [part[:count] for part, count in zip(parts, counts)], [part[count:] for part, count in zip(parts, counts)]
    joined = torch.cat([*halves[0], *halves[1]])
    return joined if rows.restore is None else joined[rows.restore]
