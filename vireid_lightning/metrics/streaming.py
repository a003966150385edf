"""Scores against a gallery of any size, which is read piece by piece and never sorted as a whole.

First the distances of each query to the images of its own identity, which are few. Then the gallery streams by: in each
block of distances, sorted on its own, a search counts the others that stand ahead of each right image. Time grows
linearly in the gallery, and memory does not grow with it, beyond its labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vireid_lightning.metrics.distances import distance_block
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.equal_rows import first_equal_rows, first_of_each
from vireid_lightning.metrics.k_reciprocal import row_blocks
from vireid_lightning.metrics.parallel import map_parts
from vireid_lightning.metrics.ranking import QueryScores, columns_by_group
from vireid_lightning.protocols import SYSU_GALLERY_CAMERA, SYSU_QUERY_CAMERA, Protocol, Trial

# A block of distances is wide, so that few searches are made, and at least this many queries high where it can be, so
# that the matrix product is not slowed down by reading the gallery.
_WIDEST_BLOCK = 16384

# What a CPU thread sorts at a time, so that it stays in the cache.
_BYTES_AT_ONCE = 2**21


@dataclass(frozen=True)
class _Own:
    """The images of the queries' own identities that a block of queries sees, by ascending distance.

    Attributes:
        column: (B, P) places in the gallery; past the last one, the number of gallery images.
        distance: (B, P); infinite past the last.
        masked: (B, P) places of all images of the own identity, those that are skipped included.
    """

    column: Tensor
    distance: Tensor
    masked: Tensor

    def rows(self, part: slice) -> _Own:
        """Return some of the queries."""
        return _Own(self.column[part], self.distance[part], self.masked[part])


class StreamingScorer:
    """Scores the queries of one trial.

    Args:
        query: What ``trial.query`` points into.
        gallery: What ``trial.gallery`` points into; may be memory-mapped.
        protocol: The rules.
        trial: What is scored.
        distance: ``cosine`` or ``euclidean``.
        block_bytes: Memory to stay within.
        progress: Whether to show a progress bar, in a terminal.
    """

    def __init__(
        self,
        query: Embeddings,
        gallery: Embeddings,
        protocol: Protocol,
        trial: Trial,
        *,
        distance: str,
        block_bytes: int,
        progress: bool = False,
    ) -> None:
        self.query, self.gallery, self.protocol, self.distance = query, gallery, protocol, distance
        self.block_bytes, self.progress = block_bytes, progress
        self.asked, self.listed = torch.from_numpy(trial.query), torch.from_numpy(trial.gallery)
        identity = gallery.identity[self.listed]
        self.camera = gallery.camera[self.listed]
        self.counts_identities = protocol.cmc == "identity"
        nobody = -1 - torch.arange(1, len(identity) + 1)  # images of nobody count as an identity each
        identities, self.label = torch.where(identity < 0, nobody, identity).unique(return_inverse=True)
        self.number_of_identities = len(identities)
        #: (W,) identities that are asked for and in the gallery, ascending.
        self.wanted = np.intersect1d(query.identity[self.asked].clamp(min=-1), identity[identity >= 0])
        self.wanted = torch.from_numpy(self.wanted)
        places = torch.isin(identity, self.wanted).nonzero().squeeze(1)
        images = columns_by_group(torch.searchsorted(self.wanted, identity[places]), len(self.wanted))
        #: (G,) the first place with the very same embedding, or None where all differ.
        self.first_equal = first_equal_rows(gallery, self.listed, distance)
        if self.first_equal is not None:
            self.has_twins = torch.bincount(self.first_equal, minlength=len(identity))[self.first_equal] > 1
        #: (W, P) places of the images of each of them; filled up with the number of gallery images.
        self.images = torch.cat([places, torch.tensor([len(identity)])])[images]

    def score(self) -> QueryScores:
        """Return (Q, 1) scores on the CPU."""
        identity, camera = self.query.identity[self.asked], self.query.camera[self.asked]
        if not len(self.wanted):
            return QueryScores.empty(len(self.asked), 1)
        skips = (camera == SYSU_QUERY_CAMERA) & (self.protocol.removal == "sysu")
        scores = QueryScores.empty(len(self.asked), 1)
        per_query = 24 * self.images.shape[1] + (self.number_of_identities if self.counts_identities else 0)
        height = max(1, self.block_bytes // (12 * _WIDEST_BLOCK + per_query))
        width = min(_WIDEST_BLOCK, max(1, self.block_bytes // (12 * height)))
        # Queries that skip the same cameras stand together, and among them those of one identity.
        order = torch.from_numpy(np.lexsort((identity.numpy(), skips.numpy())))
        blocks = [rows for skip in (False, True) for rows in order[skips[order] == skip].split(height) if len(rows)]
        with tqdm(
            total=len(self.asked) * len(self.listed), disable=None if self.progress else True, unit_scale=True
        ) as bar:
            for rows in blocks:
                scores.put(rows, slice(None), self._score_block(rows, bool(skips[rows[0]]), width, bar))
        return scores

    def _score_block(self, rows: Tensor, skips: bool, width: int, bar: tqdm) -> QueryScores:
        device, count = self.gallery.device, len(self.listed)
        visible = self.camera != SYSU_GALLERY_CAMERA if skips else None
        embedding = self.query.rows(self.asked[rows], self.distance).to(device)
        own = self._own(rows, embedding, visible)
        matched = own.column[:, 0] < count
        ahead = torch.zeros(own.column.shape, dtype=torch.int64, device=device)
        passed = torch.zeros(len(rows), self.number_of_identities, dtype=torch.bool, device=device)
        for begin in range(0, count, width):
            end = min(begin + width, count)
            block = self._distances(embedding, torch.arange(begin, end), own, begin, visible)
            if self.counts_identities:
                self._pass(passed, block, own, begin, end)
            ahead += self._count(block, own, begin, end)
            bar.update(len(rows) * (end - begin))
        place = torch.arange(1, own.column.shape[1] + 1, device=device)
        real = own.column < count
        number = real.sum(dim=1)
        rank = ahead + place
        last = torch.where(real, rank, 0).amax(dim=1)
        precision = torch.where(real, place / rank.double(), 0).sum(dim=1) / number.clamp(min=1)
        first = 1 + passed.sum(dim=1) if self.counts_identities else rank[:, 0]
        scores = (first * matched, precision, number.double() / last.clamp(min=1))
        return QueryScores(*(part[:, None] for part in scores), torch.zeros_like(matched))

    def _own(self, rows: Tensor, embedding: Tensor, visible: Tensor | None) -> _Own:
        """Measure the distances of a block of queries to the images of their own identities."""
        count, device = len(self.listed), self.gallery.device
        identity = self.query.identity[self.asked[rows]]
        row = torch.searchsorted(self.wanted, identity).clamp(max=len(self.wanted) - 1)
        known = self.wanted[row] == identity
        masked = self.images[row].masked_fill(~known[:, None], count)
        distance = torch.full(masked.shape, torch.inf, device=device)
        for wanted in row[known].unique():
            places = self.images[wanted]
            places = places[places < count]
            mine = (known & (row == wanted)).nonzero().squeeze(1).to(device)
            found = distance_block(
                embedding[mine], self.gallery.rows(self.listed[places], self.distance), self.distance
            )
            if self.first_equal is not None:
                found = found[:, first_of_each(self.first_equal[places]).to(device)]
            distance[mine[:, None], torch.arange(len(places), device=device)] = found
        column = masked.clone()
        if visible is not None:
            column[~torch.cat([visible, torch.tensor([True])])[column]] = count
        if self.protocol.removal == "same-camera":
            camera = torch.cat([self.camera, torch.tensor([-1])])[column]
            column[(camera == self.query.camera[self.asked[rows]][:, None]) & (camera >= 0)] = count
        column = column.to(device)
        distance[column == count] = torch.inf
        order = distance.sort(dim=1, stable=True).indices  # places ascend, so ties keep the gallery's order
        return _Own(column.gather(1, order), distance.gather(1, order), masked.to(device))

    def _distances(self, embedding: Tensor, places: Tensor, own: _Own, begin: int, visible: Tensor | None) -> Tensor:
        """Return (B, len(places)) distances; infinite to the own identity and to images that are skipped."""
        block = distance_block(embedding, self.gallery.rows(self.listed[places], self.distance), self.distance)
        if self.first_equal is not None:
            self._equalise(block, own, slice(begin, begin + len(places)))
        inside = (own.masked >= begin) & (own.masked < begin + len(places))
        row, slot = inside.nonzero(as_tuple=True)
        block[row, own.masked[row, slot] - begin] = torch.inf
        if visible is not None:
            block[:, ~visible[places].to(block.device)] = torch.inf
        return block

    def _equalise(self, block: Tensor, own: _Own, part: slice) -> None:
        """Give images with the embedding of an own image its very distance: another product may round otherwise."""
        twins = self.has_twins[part].nonzero().squeeze(1)
        if not len(twins):
            return
        groups, group = self.first_equal[part][twins].unique(return_inverse=True)
        padded = torch.cat([self.first_equal, torch.tensor([-1])])
        of_own = padded[own.column.cpu()]
        place = torch.searchsorted(groups, of_own).clamp(max=len(groups) - 1)
        row, slot = (groups[place] == of_own).nonzero(as_tuple=True)
        known = torch.full((len(block), len(groups)), torch.nan, device=block.device)
        known[row.to(block.device), place[row, slot].to(block.device)] = own.distance.cpu()[row, slot].to(block.device)
        twins, group = twins.to(block.device), group.to(block.device)
        distance = known.index_select(1, group)
        block[:, twins] = torch.where(distance.isnan(), block.index_select(1, twins), distance)

    @staticmethod
    def _count(block: Tensor, own: _Own, begin: int, end: int) -> Tensor:
        parts = row_blocks(len(block), 4 * (end - begin), _BYTES_AT_ONCE)
        return torch.cat(
            map_parts(lambda rows: _count_ahead(block[rows], own.rows(rows), begin, end), parts, block.device)
        )

    def _pass(self, passed: Tensor, block: Tensor, own: _Own, begin: int, end: int) -> None:
        """Mark the identities with an image in this block ahead of each query's first right image."""
        first, limit = own.column[:, 0], own.distance[:, 0]
        # Images before the first right one in the gallery's order are ahead at the same distance too.
        limit = torch.where(first >= end, torch.nextafter(limit, limit.new_tensor(torch.inf)), limit)
        label = self.label[begin:end].to(block.device)
        ahead = block < limit[:, None]
        for row in ((first >= begin) & (first < end)).nonzero().squeeze(1).tolist():
            before = int(first[row]) - begin
            ahead[row, :before] |= block[row, :before] == limit[row]
        row, column = ahead.nonzero(as_tuple=True)
        passed[row, label[column]] = True


def _count_ahead(block: Tensor, own: _Own, begin: int, end: int) -> Tensor:
    """Return (B, P) numbers of distances in a block that rank ahead of each right image; 0 past the last."""
    just_above = torch.nextafter(own.distance, own.distance.new_tensor(torch.inf))
    limit = torch.where(own.column >= end, just_above, own.distance)
    if block.device.type == "cpu":
        ordered = block.clone()
        ordered.numpy().sort(axis=1)  # quicker than PyTorch's sort, which carries indices along
    else:
        ordered = block.sort(dim=1).values
    ahead = torch.searchsorted(ordered, limit.contiguous())
    # Within the block of the right image itself, those at the same distance that stand before it.
    inside = (own.column >= begin) & (own.column < end)
    tied = ordered.gather(1, ahead.clamp(max=ordered.shape[1] - 1)) == limit
    for row, slot in (inside & tied).nonzero().tolist():
        before = int(own.column[row, slot]) - begin
        ahead[row, slot] += (block[row, :before] == limit[row, slot]).sum()
    return ahead.masked_fill_(torch.isinf(own.distance), 0)
