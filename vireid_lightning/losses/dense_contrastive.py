"""The dense contrastive loss: every pixel of an image against every pixel of its cross-modality partner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number, check_sizes

# The exponentials that are held at once: 2**24 float32 values are 64 MiB, which hold a whole pair of 96 x 32 maps.
_BLOCK_ELEMENTS = 2**24
# Below, exponentials leave float32's range. exp(1 / 0.02) = exp(50) times the pixels of an image, and its inverse, are
# far inside it.
_LOWEST_TEMPERATURE = 0.02


def dense_contrastive_loss(
    visible: Tensor,
    infrared: Tensor,
    visible_mask: Tensor,
    infrared_mask: Tensor,
    *,
    temperature: float = 0.05,
    parts: int | None = None,
    mean_count: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Contrast the pixels of paired images by the part they show, at full resolution (Sun et al., ACM MM 2022).

    Image i of ``visible`` is compared with image i of ``infrared``. With s(u, v) the cosine of their pixels u and v,
    the term of a visible pixel u whose mask names a part is

        -log( sum over v with mask(v) = mask(u) of exp(s(u, v) / t)  /  sum over all v of exp(s(u, v) / t) ),

    and that of an infrared pixel v is likewise, over u. The loss is the mean over all pixels that have a pixel of their
    part on the other side, of all pairs and both modalities; 0, with gradients of 0, where there is no such pixel.
    A pixel whose feature is zero has a cosine of 0 with every other and a gradient of 0.

    Memory: the exponentials exist for one pair at a time, or for one block of a pair whose maps have more than 4096
    pixels. The gradients are computed with them, in the forward pass, so that exponentials need not be computed again;
    they are kept until the backward pass. Pixels that have no term are not compared with each other.

    Args:
        visible: (B, C, H, W) feature maps. Any floating type; computed in float32, also under autocast.
        infrared: (B, C, H', W') feature maps of the images they are paired with.
        visible_mask: (B, H, W) integers: 0 for background, the number of a part, from 1, otherwise.
        infrared_mask: (B, H', W') integers, of the same parts.
        temperature: Divisor t of the cosines, at least 0.02.
        parts: Largest number of a part in the masks; None reads it from them, which waits for the device.
        mean_count: Function from the number of pixels with a term to its mean over processes, which takes its place;
            the mean of the processes' losses is then that of the whole batch.

    Returns:
        A scalar, float32 (float64 for float64 maps).

    Raises:
        VIReIDError: If the shapes do not fit together, a mask is not of integers, or the temperature is too low.

    Example:
        >>> maps, mask = torch.eye(2).view(1, 2, 1, 2), torch.tensor([[[1, 2]]])
        >>> dense_contrastive_loss(maps, maps, mask, mask).item() < 1e-6  # each pixel matches its own part alone
        True
    """
    _check(visible, infrared, visible_mask, infrared_mask, temperature, parts)
    visible_order, infrared_order, terms, layouts = _sort_by_part(
        visible_mask.flatten(1), infrared_mask.flatten(1), parts
    )
    if mean_count is not None:
        terms = mean_count(terms)
    terms = torch.where(terms > 0, terms, 1).to(_precision(visible))
    backward_follows = torch.is_grad_enabled() and (visible.requires_grad or infrared.requires_grad)
    loss: Tensor = _DenseContrastive.apply(
        visible, infrared, visible_order, infrared_order, layouts, temperature, terms, backward_follows
    )
    return loss


class _Segment(NamedTuple):
    """Where the pixels of one part lie in a sorted pair: rows of the visible image, columns of the infrared one."""

    first_row: int
    end_row: int
    first_column: int
    end_column: int


class _Layout(NamedTuple):
    """A pair after sorting: pixels with a term come first, part after part; ``rows`` and ``columns`` say how many."""

    rows: int
    columns: int
    segments: list[_Segment]


def _check(
    visible: Tensor,
    infrared: Tensor,
    visible_mask: Tensor,
    infrared_mask: Tensor,
    temperature: float,
    parts: int | None,
) -> None:
    if visible.ndim != 4 or infrared.ndim != 4 or visible.shape[:2] != infrared.shape[:2]:
        raise VIReIDError(
            f"The dense contrastive loss pairs maps (B, C, H, W) of equal B and C, but got {tuple(visible.shape)} and "
            f"{tuple(infrared.shape)}; give as many visible as infrared images, in pairs."
        )
    for name, maps, mask in (("visible", visible, visible_mask), ("infrared", infrared, infrared_mask)):
        if mask.shape != (maps.shape[0], *maps.shape[2:]):
            raise VIReIDError(
                f"The {name} mask is {tuple(mask.shape)} where the {name} maps are {tuple(maps.shape)}; "
                "a mask needs one label for each pixel."
            )
        if mask.is_floating_point() or mask.is_complex():
            raise VIReIDError(f"The {name} mask is {mask.dtype}; part labels are integers, with 0 for background.")
    check_number("temperature", temperature, _LOWEST_TEMPERATURE)
    if parts is not None:
        check_sizes(parts=parts)


def _sort_by_part(
    visible_mask: Tensor, infrared_mask: Tensor, parts: int | None
) -> tuple[Tensor, Tensor, Tensor, list[_Layout]]:
    """Order each image's pixels: first those of the parts that both images have, part after part, then all others.

    Also return the number of pixels that have a term, and the layout of each pair, whose sizes the host must know.
    """
    masks = [mask.long().clamp(min=0) for mask in (visible_mask, infrared_mask)]
    if parts is None:
        parts = max((int(mask.max()) for mask in masks if mask.numel()), default=0)
    masks = [mask.clamp(max=parts + 1) for mask in masks]
    counts = [
        torch.zeros(mask.shape[0], parts + 2, dtype=torch.long, device=mask.device).scatter_add_(
            1, mask, torch.ones_like(mask)
        )
        for mask in masks
    ]
    shared = (counts[0] > 0) & (counts[1] > 0)
    shared[:, 0] = shared[:, -1] = False
    beyond = counts[0][:, -1] + counts[1][:, -1]
    orders = [
        torch.where(shared.gather(1, mask), mask, parts + 2).argsort(dim=1, stable=True)  # pixels without a term last
        for mask in masks
    ]
    counted = torch.stack(counts) * shared
    *read, others = torch.stack([*counted, beyond[:, None].expand_as(shared)]).tolist()  # the host waits here, once
    if any(map(any, others)):
        raise VIReIDError(f"A mask of the dense contrastive loss names a part above parts, which is {parts}.")
    layouts = []
    for row_counts, column_counts in zip(*read, strict=True):
        segments, row, column = [], 0, 0
        for rows, columns in zip(row_counts, column_counts, strict=True):
            if rows:
                segments.append(_Segment(row, row + rows, column, column + columns))
                row, column = row + rows, column + columns
        layouts.append(_Layout(row, column, segments))
    return orders[0], orders[1], counted.sum(), layouts


class _DenseContrastive(torch.autograd.Function):
    """The loss on sorted pixels. Forward takes the gradients too, while a pair's exponentials are there."""

    @staticmethod
    def forward(
        ctx: Any,
        visible: Tensor,
        infrared: Tensor,
        visible_order: Tensor,
        infrared_order: Tensor,
        layouts: list[_Layout],
        temperature: float,
        terms: Tensor,
        backward_follows: bool,
    ) -> Tensor:
        with torch.autocast(visible.device.type, enabled=False):
            row_inverse, column_inverse = (
                _inverse_lengths(maps, order) for maps, order in ((visible, visible_order), (infrared, infrared_order))
            )
            total = visible.new_zeros((), dtype=_precision(visible))
            scratch = [_scratch(visible, infrared) for _ in range(1 + backward_follows)]
            gradients = [_empty_gradient(maps) for maps in (visible, infrared) if backward_follows]
            for pair, layout in enumerate(layouts):
                rows = _pixels(visible[pair], visible_order[pair], row_inverse[pair])
                columns = _pixels(infrared[pair], infrared_order[pair], column_inverse[pair])
                blocks = _Blocks(rows / temperature, columns, layout, scratch[0])
                sums = _sum_exponentials(rows, columns, layout, blocks)
                row_all, row_same, column_all, column_same = (values.log().sum() for values in sums)
                total += (row_all - row_same) + (column_all - column_same)
                if not backward_follows:
                    continue
                row_grad, column_grad = _cosine_gradients(rows, columns, layout, sums, temperature, blocks, scratch[1])
                for grad, order, unit, unit_grad, inverse in (
                    (gradients[0][pair], visible_order[pair], rows, row_grad, row_inverse[pair]),
                    (gradients[1][pair], infrared_order[pair], columns, column_grad, column_inverse[pair]),
                ):
                    # Through the normalisation: the gradient along the unit vector does not change the loss.
                    along = (unit * unit_grad).sum(1, keepdim=True)
                    unit_grad.addcmul_(unit, along, value=-1).mul_(inverse[:, None])
                    grad.flatten(1).t()[order] = unit_grad
            ctx.save_for_backward(*gradients)
            ctx.terms, ctx.dtype = terms, visible.dtype
            return total / terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_output / ctx.terms
        visible_grad, infrared_grad = ((gradient * scale).to(ctx.dtype) for gradient in ctx.saved_tensors)
        return visible_grad, infrared_grad, None, None, None, None, None, None


def _precision(maps: Tensor) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)


def _empty_gradient(maps: Tensor) -> Tensor:
    channels_last = maps.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # Not in half precision: the loss scale that keeps gradients in float16's range arrives in backward only.
    return torch.empty_like(maps, dtype=_precision(maps), memory_format=memory_format)


def _inverse_lengths(maps: Tensor, order: Tensor) -> Tensor:
    """Return the inverse lengths of all images' sorted pixels, (B, H * W); 0 for a pixel whose feature is zero."""
    lengths = torch.linalg.vector_norm(maps, dim=1, dtype=_precision(maps)).flatten(1).gather(1, order)
    inverse: Tensor = torch.where(lengths > 0, 1 / lengths, 0)
    return inverse


def _pixels(maps: Tensor, order: Tensor, scale: Tensor) -> Tensor:
    """Return an image's pixels (C, H, W) in sorted order, each times its scale: (H * W, C)."""
    return maps.flatten(1).t().index_select(0, order).to(_precision(maps)).mul_(scale[:, None])


def _scratch(visible: Tensor, infrared: Tensor) -> Tensor:
    """Return memory for the largest block; all blocks use it, because new pages cost as much as the arithmetic."""
    rows, columns = (maps.shape[2] * maps.shape[3] for maps in (visible, infrared))
    size = max(columns, min(_BLOCK_ELEMENTS, rows * columns))
    return visible.new_empty(size, dtype=_precision(visible))


class _Blocks:
    """The exponentials of a pair, block by block: (first row, end row, exponentials), as often as they are iterated.

    Rows without a term meet only the columns that have one. Where all blocks fit into the scratch they are computed
    once, else each time.

    Args:
        rows: (H * W, C), the visible pixels' unit vectors over the temperature.
        columns: (H' * W', C), the infrared pixels' unit vectors.
        layout: Of the pair.
        scratch: Memory for blocks.
    """

    def __init__(self, rows: Tensor, columns: Tensor, layout: _Layout, scratch: Tensor) -> None:
        self.rows, self.columns, self.layout, self.scratch = rows, columns, layout, scratch
        count, width = len(rows), len(columns)
        self.keep = layout.rows * width + (count - layout.rows) * layout.columns <= scratch.numel()
        self.kept: list[tuple[int, int, Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[int, int, Tensor]]:
        if not self.keep:
            return self._compute()
        if self.kept is None:
            self.kept = list(self._compute())
        return iter(self.kept)

    def _compute(self) -> Iterator[tuple[int, int, Tensor]]:
        layout, place = self.layout, 0
        for start, end, width in (
            (0, layout.rows, len(self.columns)),
            (layout.rows, len(self.rows), layout.columns),
        ):
            step = max(1, self.scratch.numel() // max(width, 1))
            for first in range(start, end if width else start, step):
                last = min(first + step, end)
                size = (last - first) * width
                block = self.scratch[place : place + size].view(last - first, width)
                place += size if self.keep else 0
                torch.mm(self.rows[first:last], self.columns[:width].t(), out=block)
                yield first, last, block.exp_()


def _segments_within(layout: _Layout, first: int, last: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield, for each part in the rows of a block: its rows in the image, its rows in the block, its columns."""
    for segment in layout.segments:
        start, end = max(segment.first_row, first), min(segment.end_row, last)
        if start < end:
            yield (
                slice(start, end),
                slice(start - first, end - first),
                slice(segment.first_column, segment.end_column),
            )


def _sum_exponentials(
    rows: Tensor, columns: Tensor, layout: _Layout, blocks: _Blocks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sums over all columns and over those of the same part, of the rows that have a term; columns likewise."""
    row_all, row_same = rows.new_zeros(2, layout.rows).unbind()
    column_all, column_same = rows.new_zeros(2, layout.columns).unbind()
    for first, last, exponentials in blocks:
        if last <= layout.rows:
            row_all[first:last] = exponentials.sum(1)
        column_all += exponentials[:, : layout.columns].sum(0)
        for part_rows, block_rows, part_columns in _segments_within(layout, first, last):
            same = exponentials[block_rows, part_columns]
            row_same[part_rows] = same.sum(1)
            column_same[part_columns] += same.sum(0)
    return row_all, row_same, column_all, column_same


def _cosine_gradients(
    rows: Tensor,
    columns: Tensor,
    layout: _Layout,
    sums: tuple[Tensor, Tensor, Tensor, Tensor],
    temperature: float,
    blocks: _Blocks,
    scratch: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the sum of all terms with respect to the unit vectors.

    The derivative with respect to s(u, v) / t is
    exp(s / t) * (1 / all_u + 1 / all_v - [same part](1 / same_u + 1 / same_v)), where pixels without a term have no
    inverses.
    """
    row_all, row_same, column_all, column_same = (values.reciprocal() for values in sums)
    row_part, column_part = row_all - row_same, column_all - column_same
    row_all = torch.cat([row_all, row_all.new_zeros(len(rows) - layout.rows)])
    column_all = torch.cat([column_all, column_all.new_zeros(len(columns) - layout.columns)])
    row_grad, column_grad = torch.empty_like(rows), torch.zeros_like(columns)
    row_grad[layout.rows :] = 0
    for first, last, exponentials in blocks:
        width = exponentials.shape[1]
        weight = scratch[: exponentials.numel()].view_as(exponentials)
        torch.add(row_all[first:last, None], column_all[:width], out=weight)
        for part_rows, block_rows, part_columns in _segments_within(layout, first, last):
            torch.add(row_part[part_rows, None], column_part[part_columns], out=weight[block_rows, part_columns])
        weight.mul_(exponentials)
        torch.mm(weight, columns[:width], out=row_grad[first:last])
        column_grad[:width].addmm_(weight.t(), blocks.rows[first:last])
    return row_grad.div_(temperature), column_grad
