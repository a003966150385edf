"""The engine: ranks of the true matches of every query in every trial, whatever the size of the gallery.

A block of queries meets the gallery chunk by chunk; a gallery that fits is one chunk. Each distance becomes a 64-bit
key: above, the distance's bits as an integer of the same order; below, the image's place in the order that decides
ties. All keys of a query differ, so a rank is the number of smaller keys. Keys are sorted once for all trials; a search
then finds each true match among them, and sums over the rows of the (C, T) membership matrix in sorted order say how
many images of each of T galleries stand before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from vireid_lightning.metrics.distances import Distances, Positions, to_ordered_bits
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.measures import TrueMatches
from vireid_lightning.metrics.parallel import map_parts
from vireid_lightning.metrics.sharing import ALL, Share
from vireid_lightning.protocols import Protocol, Trial, is_removed

#: Gallery images of a chunk, at most, beside those of its last identity.
WIDEST_CHUNK = 2**15

# Keys in one sort: NumPy sorts up to 512 several times as fast as more, which halves the time against a million images.
_SORTED_AT_ONCE = 512
# Distances that are worked on at a time: on a CPU what a thread makes of them stays in the cache.
_VALUES_AT_ONCE, _VALUES_ON_GPU = 2**18, 2**26

# Queries of a block, at most, against a gallery of one chunk: enough blocks to deal to several processes.
_QUERIES_AT_ONCE = 1024

LAST_KEY = 2**63 - 1  # key that comes after those of all images
LOW_BITS = 2**32 - 1


def rank_true_matches(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    trials: Sequence[Trial],
    distances: Distances,
    *,
    block_bytes: int,
    progress: bool = False,
    share: Share = ALL,
) -> Iterator[tuple[Positions, TrueMatches]]:
    """Yield blocks of queries, as places in ``trials[0].query``, and their true matches.

    Queries that see no gallery image at all are left out.

    Args:
        query: Embeddings of the queries, whose labels are read here.
        gallery: Embeddings of the gallery, whose labels are read here.
        protocol: Says which images a query skips, and what a rank of the CMC curve counts.
        trials: One trial; or several that share their queries, list their galleries by identity, and have no more than
            :data:`WIDEST_CHUNK` images together.
        distances: Measures queries against gallery images, both given by position.
        block_bytes: Memory that the blocks may take.
        progress: Whether to show a progress bar for a gallery of several chunks.
        share: Which blocks this process ranks.
    """
    asked, done = trials[0].query, 0
    identity, camera = query.identity.numpy()[asked], query.camera.numpy()[asked]
    listed = trials[0].gallery
    if len(trials) > 1:
        listed = np.unique(np.concatenate([trial.gallery for trial in trials]))
        listed = listed[np.argsort(gallery.identity.numpy()[listed], kind="stable")]
    # Their own identity aside, queries see the same images that skip the same gallery cameras.
    numbers, gallery_camera = np.unique(gallery.camera.numpy()[listed], return_inverse=True)
    skipped = is_removed(protocol.removal, False, camera[:, None], numbers)
    views, view_of = np.unique(skipped, axis=0, return_inverse=True)
    for number, skipped_cameras in enumerate(views):
        columns = listed[~skipped_cameras[gallery_camera]]
        if not len(columns):
            continue
        # Queries of one identity stand together, so that few images are measured beforehand.
        places = np.flatnonzero(view_of.reshape(-1) == number)
        places = places[np.argsort(identity[places], kind="stable")]
        view = _View(gallery, columns, np.unique(identity[places]), protocol, trials, distances)
        height = max(1, block_bytes // view.bytes_per_query)
        if len(view.chunks) == 1:
            height = min(height, _QUERIES_AT_ONCE)
        hidden = not progress or len(view.chunks) == 1
        with tqdm(total=len(places) * len(columns), unit_scale=True, disable=hidden or None) as bar:
            for begin in range(0, len(places), height):
                block, done = places[begin : begin + height], done + 1
                if not share.owns(done - 1):
                    continue
                for part, matches in view.rank(asked[block], identity[block], camera[block], bar.update):
                    yield block[part], matches


class _Chunk(NamedTuple):
    """Some columns of a view.

    Attributes:
        begin: The first of them.
        columns: (C,) their gallery positions.
        tie: (C,) int64, place of each in the order that decides ties.
        slots: Element s: the column, from the first of the chunk, of the s-th image of every (trial, identity) with
            more than s images here; those with most images first. Comparing one slot of all identities at once is more
            than twice as fast as one reduction over all images.
        trial: (N,) the trial of each (trial, identity).
    """

    begin: int
    columns: Positions
    tie: Tensor
    slots: Sequence[Tensor]
    trial: Tensor


class _View:
    """The galleries of several trials, as queries of one camera and of the ``wanted`` identities see them."""

    def __init__(
        self,
        gallery: Embeddings,
        listed: Positions,
        wanted: Positions,
        protocol: Protocol,
        trials: Sequence[Trial],
        distances: Distances,
    ) -> None:
        self.protocol, self.distances, self.device = protocol, distances, gallery.device
        # In a gallery of several chunks each identity lies in one of them, where its images are counted as one.
        by_identity = np.argsort(gallery.identity.numpy()[listed], kind="stable")
        tie = by_identity if len(listed) > WIDEST_CHUNK else np.arange(len(listed))
        self.columns = listed[tie]
        self.camera = np.append(gallery.camera.numpy()[self.columns], -1)
        identity = gallery.identity.numpy()[self.columns]
        #: (W,) identities that queries ask for; images of nobody, and queries for nobody, have no true match.
        self.wanted = np.append(wanted[wanted >= 0], LAST_KEY)
        places = np.flatnonzero(np.isin(identity, self.wanted))
        order, size, place = _group(np.searchsorted(self.wanted, identity[places]))
        #: (W, P) columns of each of them; past the last, the number of columns.
        self.columns_of = np.full((len(self.wanted), int(size.max(initial=1))), len(identity))
        self.columns_of[np.repeat(np.arange(len(size)), size), place] = places[order]
        #: (C + 1, T) which columns are in the gallery of each trial; the last row is of none.
        self.member = np.stack([np.append(np.isin(self.columns, trial.gallery), False) for trial in trials], axis=1)
        self.members = None if self.member[:-1].all() else torch.from_numpy(self.member).float().to(self.device)
        #: Most true matches that a query can have in a trial.
        self.most = max(1, int(self.member[self.columns_of].sum(axis=1).max()))
        self.tie = torch.from_numpy(np.append(tie, 0)).to(self.device)
        # Images of nobody count as an identity each.
        label = np.unique(np.where(identity < 0, -1 - np.arange(len(identity)), identity), return_inverse=True)[1]
        self.chunks = [self._make_chunk(begin, end, label) for begin, end in pairwise(_cut(label))]
        self.widest = max(len(chunk.columns) for chunk in self.chunks)
        self.bytes_per_query = 4 * self.widest + self.columns_of.shape[1] * (24 + 16 * len(trials))

    def _make_chunk(self, begin: int, end: int, label: Positions) -> _Chunk:
        slots, trial = [], np.empty(0, dtype=np.int64)
        if self.protocol.cmc == "identity":
            trial, column = self.member[begin:end].T.nonzero()
            pairs, pair, size = np.unique(
                trial * len(label) + label[begin:end][column], return_inverse=True, return_counts=True
            )
            longest_first = np.argsort(-size, kind="stable")
            order, _, place = _group(np.argsort(longest_first)[pair])
            by_slot, sizes, _ = _group(place)
            slots = np.split(column[order][by_slot], np.cumsum(sizes)[:-1])
            trial = pairs[longest_first] // len(label)
        *tensors, last = (torch.from_numpy(each).to(self.device) for each in (*slots, trial))
        # The same object each time, by which the distances know that they have prepared it.
        columns = self.columns if end - begin == len(self.columns) else self.columns[begin:end]
        return _Chunk(begin, columns, self.tie[begin:end], tensors, last)

    def rank(
        self, asked: Positions, identity: Positions, camera: Positions, report: Callable[[int], object]
    ) -> Iterator[tuple[slice, TrueMatches]]:
        """Yield the true matches of parts of a block of queries, given by position, identity and camera."""
        none = len(self.columns)
        own = self.columns_of[np.searchsorted(self.wanted, np.where(identity < 0, LAST_KEY, identity))]
        own = own[:, : max(1, int((own < none).sum(axis=1).max()))]
        removed = is_removed(self.protocol.removal, True, camera[:, None], self.camera[own]) & (own < none)
        seen = self.member.sum(axis=0) - self.member[np.where(removed, own, none)].sum(axis=1)
        height = max(1, (_VALUES_AT_ONCE if self.device.type == "cpu" else _VALUES_ON_GPU) // self.widest)
        cuts = [slice(begin, begin + height) for begin in range(0, len(asked), height)]
        known = None
        if len(self.chunks) > 1:
            measured = torch.cat([self._measure_own(asked[cut], own[cut]) for cut in cuts])
            known = np.append(self.columns, -1)[own], measured
        kept = torch.from_numpy(np.where(removed, none, own)).to(self.device)
        parts = [_Part(self, cut, kept[cut], None if known is None else known[1][cut]) for cut in cuts]
        for chunk in self.chunks:
            block = self.distances(asked, chunk.columns, known)
            row, place = (removed & (own >= chunk.begin) & (own < chunk.begin + len(chunk.columns))).nonzero()
            # NaN, whose bits come after those of infinity: ahead of no true match.
            block[torch.from_numpy(row), torch.from_numpy(own[row, place] - chunk.begin)] = torch.nan
            map_parts(partial(_Part.count, chunk=chunk, block=block), parts, self.device)
            report(block.numel())
            del block  # before the next one is made
        seen = torch.from_numpy(seen).to(self.device)
        yield from zip(cuts, map_parts(partial(_Part.find_matches, gallery=seen), parts, self.device))

    def _measure_own(self, asked: Positions, own: Positions) -> Tensor:
        """Return the distances (B, P) of queries to the images of their own identities; any value past the last."""
        columns, place = np.unique(own, return_inverse=True)
        block = self.distances(asked, self.columns[columns.clip(max=len(self.columns) - 1)], None)
        return block.gather(1, torch.from_numpy(place.reshape(own.shape)).to(self.device))


class _Part:
    """Some queries of a block, and what they have seen of the gallery so far.

    Args:
        view: The galleries.
        rows: Which queries of the block.
        own: (b, P) columns of their own identities that they do not skip; past the last, the number of columns.
        measured: (b, P) their distances, or None where the only chunk tells them.
    """

    def __init__(self, view: _View, rows: slice, own: Tensor, measured: Tensor | None) -> None:
        self.view, self.rows, self.own = view, rows, own
        trials = view.member.shape[1]
        self.ahead = torch.zeros(*own.shape, trials, device=view.device)
        self.passed = torch.zeros(trials, len(own), device=view.device)
        #: (b, P) keys of the own images, ascending.
        self.key = torch.empty(0)
        if measured is not None:
            keys = make_keys(measured, view.tie[own], 1)[:, : own.shape[1]]
            self.key = _sort_rows(torch.where(own == len(view.columns), LAST_KEY, keys))

    def count(self, chunk: _Chunk, block: Tensor) -> None:
        """Count the images of a chunk, at (B, C) distances, that rank ahead of each true match."""
        width = max(_SORTED_AT_ONCE, 4 * self.own.shape[1])
        keys = make_keys(block[self.rows], chunk.tie, width)
        if not self.key.numel():
            self.key = _sort_rows(keys.gather(1, self.own))
        if chunk.slots:
            # An identity is ahead of the first true match where its nearest image is.
            first = self.key.gather(1, self._find_true().transpose(1, 2).contiguous().argmax(dim=2))
            by_column = keys.T.contiguous()
            nearest = by_column.new_full((len(chunk.trial), len(keys)), LAST_KEY)
            for columns in chunk.slots:
                head = nearest[: len(columns)]
                torch.minimum(head, by_column.index_select(0, columns), out=head)
            self.passed.index_add_(0, chunk.trial, (nearest < first.T.index_select(0, chunk.trial)).float())
        self.ahead += _count_below(keys, self.key, self.view.members, width)

    def find_matches(self, gallery: Tensor) -> TrueMatches:
        """Return the true matches, after all chunks; ``gallery`` holds the (B, T) numbers of images that are seen."""
        true = self._find_true()
        number = true.sum(dim=1).long()
        rank = torch.where(true > 0, self.ahead + 1, torch.inf).transpose(1, 2).double().contiguous()
        rank = _sort_rows(rank)[:, :, : self.view.most]
        passed = (self.passed.T + 1).double().masked_fill(number == 0, torch.inf)
        first = passed if self.view.protocol.cmc == "identity" else rank[:, :, 0]
        return TrueMatches(rank, number, first, gallery[self.rows])

    def _find_true(self) -> Tensor:
        """Return (b, P, T), 1 where an own image is a true match in a trial, in the order of ``key``."""
        if self.view.members is None:
            return (self.key < LAST_KEY).float()[:, :, None].expand_as(self.ahead)
        columns = (self.key & LOW_BITS).clamp_(max=len(self.view.columns))  # the only chunk's columns are in tie order
        return self.view.members.index_select(0, columns.flatten()).view_as(self.ahead)


def make_keys(distance: Tensor, tie: Tensor, width: int) -> Tensor:
    """Return int64 keys of (b, C) distances, filled up behind, by one column at least, to a multiple of ``width``."""
    bits = to_ordered_bits(distance)
    height, count = distance.shape
    keys = torch.empty(height, (count // width + 1) * width, dtype=torch.int64, device=distance.device)
    torch.bitwise_or(bits.long() << 32, tie, out=keys[:, :count])
    keys[:, count:] = LAST_KEY
    return keys


def _sort_rows(values: Tensor) -> Tensor:
    """Return values that ascend along the last dimension; those that are given are no longer in order."""
    if values.device.type == "cpu":  # NumPy sorts plain numbers with vector instructions, several times as fast
        values.numpy().sort(axis=-1)
        return values
    return values.sort(dim=-1).values


def _count_below(keys: Tensor, wanted: Tensor, members: Tensor | None, width: int) -> Tensor:
    """Return (b, P, T) numbers of each trial's keys below each of the ascending wanted keys (b, P).

    ``members`` (C + 1, T) says which columns are of which trial, None that all are of one; ``width`` keys are sorted
    at a time.
    """
    ordered = _sort_rows(keys.view(len(keys), -1, width))
    cut = torch.searchsorted(ordered, wanted[:, None].expand(-1, ordered.shape[1], -1).contiguous())
    if members is None:
        return cut.sum(dim=1)[:, :, None]
    start = functional.pad(cut, (1, 0)).flatten(0, 1)
    start += width * torch.arange(len(start), device=keys.device)[:, None]
    order = (ordered & LOW_BITS).clamp_(max=len(members) - 1)
    between = functional.embedding_bag(order.flatten(), members, start.flatten(), mode="sum")
    between = between.view(*ordered.shape[:2], -1, members.shape[1])[:, :, :-1].sum(dim=1)
    # On a GPU, PyTorch's deterministic mode refuses running sums of floats, whose rounding depends on the order.
    return between.cumsum(dim=1) if keys.device.type == "cpu" else between.int().cumsum(dim=1).float()


def _group(group: Positions) -> tuple[Positions, Positions, Positions]:
    """Return the members of all groups, one group after another, the groups' sizes, and each place in a group."""
    order, size = np.argsort(group, kind="stable"), np.bincount(group)
    return order, size, np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)


def _cut(label: Positions) -> list[int]:
    """Return where chunks of the columns with these labels begin, and the end of the last.

    Columns of several chunks stand by identity, and those of one identity are in the chunk of its first.
    """
    first = np.maximum.accumulate(np.where(np.diff(label, prepend=-1) != 0, np.arange(len(label)), 0))
    return [0, *(np.flatnonzero(np.diff(first // WIDEST_CHUNK)) + 1).tolist(), len(label)]
