"""The engine: ranks of the true matches of every query in every trial, whatever the size of the gallery.

A block of queries meets the gallery chunk by chunk; a gallery that fits is one chunk. Each distance becomes a 64-bit
key: above, the distance's bits as an integer of the same order; below, the image's place in the order that decides
ties. All keys of a query differ, so a rank is the number of smaller keys. Keys are sorted once for all trials; a search
then finds each true match among them, and sums over the rows of the (C, T) membership matrix in sorted order say how
many images of each of T galleries stand before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from vireid_lightning.metrics.distances import Distances, Positions, to_ordered_bits
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.measures import TrueMatches
from vireid_lightning.metrics.parallel import map_parts
from vireid_lightning.protocols import Protocol, Trial, is_removed

#: Gallery images of a chunk, at most, unless an identity alone has more.
WIDEST_CHUNK = 2**15

# Keys in one sort: NumPy sorts up to 512 several times as fast as more, which halves the time against a million images.
_SORTED_AT_ONCE = 512
# Distances that a CPU thread works on at a time, so that what it makes of them stays in the cache.
_VALUES_AT_ONCE = 2**18
# Queries whose own identities' images are measured together, where the gallery has several chunks.
_MEASURED_AT_ONCE = 64

# Images of an identity in one chunk and trial that are compared image by image, for all identities at once; twice as
# fast as one reduction over all images, which serves identities with more.
_SLOTS = 64
_NONE = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

_LAST = 2**63 - 1  # key that comes after those of all images
_LOW = 2**32 - 1


def rank_true_matches(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    trials: Sequence[Trial],
    distances: Distances,
    *,
    block_bytes: int,
    progress: bool = False,
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
    """
    identity, camera = (labels.numpy()[trials[0].query] for labels in (query.identity, query.camera))
    listed = trials[0].gallery
    if len(trials) > 1:
        listed = np.unique(np.concatenate([trial.gallery for trial in trials]))
        listed = listed[np.argsort(gallery.identity.numpy()[listed], kind="stable")]
    # Their own identity aside, queries of one camera see the same images: those of the same gallery cameras.
    numbers, gallery_camera = np.unique(gallery.camera.numpy()[listed], return_inverse=True)
    by_view: dict[bytes, list[int]] = {}
    for number in np.unique(camera).tolist():
        seen = ~is_removed(protocol.removal, False, number, numbers)
        by_view.setdefault(seen.tobytes(), []).append(number)
    for view_bytes, cameras in by_view.items():
        seen = np.frombuffer(view_bytes, dtype=bool)[gallery_camera]
        if not seen.any():
            continue
        places = np.flatnonzero(np.isin(camera, cameras))
        view = _View(gallery, listed[seen], np.unique(identity[places]), protocol, trials, distances)
        # Queries of one identity stand together, so that few images are measured beforehand.
        places = places[np.argsort(identity[places], kind="stable")]
        height = max(1, block_bytes // view.bytes_per_query)
        several = progress and len(view.chunks) > 1
        with tqdm(total=len(places) * len(view.columns), unit_scale=True, disable=None if several else True) as bar:
            for begin in range(0, len(places), height):
                block = places[begin : begin + height]
                for part, matches in view.rank(trials[0].query[block], identity[block], camera[block], bar):
                    yield block[part], matches


@dataclass(frozen=True)
class _Chunk:
    """Some columns of a view.

    Attributes:
        part: Which columns.
        columns: (C,) their gallery positions.
        tie: (C,) int64, place of each in the order that decides ties.
        slots: Element s: the column, from the first of the chunk, of the s-th image of every (trial, identity) with
            more than s images here; those with most images first.
        rest: Columns of the images that are in no slot, and the number of their (trial, identity).
        trial: (N,) the trial of each (trial, identity).
    """

    part: slice
    columns: Positions
    tie: Tensor
    slots: list[Tensor]
    rest: tuple[Tensor, Tensor]
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
        #: (W,) identities that queries ask for; images of nobody are no query's true match.
        self.wanted = np.append(wanted[wanted >= 0], np.iinfo(np.int64).max)
        places = np.flatnonzero(np.isin(identity, self.wanted))
        #: (W, P) columns of each of them; past the last, the number of columns.
        self.columns_of = np.append(places, len(identity))[
            _group(np.searchsorted(self.wanted, identity[places]), len(self.wanted))
        ]
        # Images of nobody count as an identity each.
        identities, label = np.unique(
            np.where(identity < 0, -1 - np.arange(len(identity)), identity), return_inverse=True
        )
        #: (C + 1, T) which columns are in the gallery of each trial; the last row is of none.
        self.member = np.stack([np.append(np.isin(self.columns, trial.gallery), False) for trial in trials], axis=1)
        self.members = None if self.member[:-1].all() else torch.from_numpy(self.member).float().to(self.device)
        #: Most true matches that a query can have in a trial.
        self.most = max(1, int(self.member[self.columns_of].sum(axis=1).max()))
        self.tie = torch.from_numpy(np.append(tie, 0)).to(self.device)
        self.chunks = [self._chunk(part, label, len(identities)) for part in _cut(label)]
        self.widest = max(len(chunk.columns) for chunk in self.chunks)
        self.bytes_per_query = 4 * self.widest + self.columns_of.shape[1] * (24 + 16 * len(trials))

    def _chunk(self, part: slice, label: Positions, identities: int) -> _Chunk:
        trial_of, column = self.member[:-1][part].T.nonzero() if self.protocol.cmc == "identity" else _NONE
        pairs, pair = np.unique(trial_of * identities + label[part][column], return_inverse=True)
        longest_first = np.argsort(-np.bincount(pair), kind="stable")
        number = np.argsort(longest_first)[pair]
        order = np.argsort(number, kind="stable")
        column, number = column[order], number[order]
        place = np.arange(len(number)) - np.searchsorted(number, number)
        slots = [column[place == slot] for slot in range(min(_SLOTS, int(place.max(initial=-1)) + 1))]
        rest = place >= _SLOTS
        whole = part.stop - part.start == len(self.columns)
        tensors = [torch.from_numpy(each).to(self.device) for each in (column[rest], number[rest], *slots)]
        trials = torch.from_numpy(pairs[longest_first] // max(1, identities)).to(self.device)
        columns = self.columns if whole else self.columns[part]
        return _Chunk(part, columns, self.tie[:-1][part], tensors[2:], (tensors[0], tensors[1]), trials)

    def rank(
        self, asked: Positions, identity: Positions, camera: Positions, bar: tqdm[Any]
    ) -> Iterator[tuple[slice, TrueMatches]]:
        """Yield the true matches of parts of a block of queries, given by position, identity and camera."""
        own, removed = self._find_own(identity, camera)
        none, trials = len(self.columns), self.member.shape[1]
        kept = torch.from_numpy(np.where(removed, none, own)).to(self.device)
        measured = None if len(self.chunks) == 1 else self._measure_own(asked, own)
        known = None if measured is None else (np.append(self.columns, -1)[own], measured)
        step = max(1, _VALUES_AT_ONCE // self.widest) if self.device.type == "cpu" else len(asked)
        parts = [slice(begin, begin + step) for begin in range(0, len(asked), step)]
        rows = [_Rows(self, part, kept[part], None if measured is None else measured[part]) for part in parts]
        for chunk in self.chunks:
            block = self.distances(asked, chunk.columns, known)
            row, place = (removed & (own >= chunk.part.start) & (own < chunk.part.stop)).nonzero()
            # NaN, whose bits come after those of infinity: ahead of no true match.
            block[torch.from_numpy(row), torch.from_numpy(own[row, place] - chunk.part.start)] = torch.nan
            map_parts(partial(_Rows.meet, chunk=chunk, block=block), rows, self.device)
            bar.update(block.numel())
            del block  # before the next one is made
        gallery = torch.from_numpy(self.member.sum(axis=0)).expand(len(asked), trials)
        if removed.any():
            gallery = gallery - torch.from_numpy(self.member[np.where(removed, own, none)].sum(axis=1))
        yield from zip(parts, map_parts(partial(_Rows.matches, gallery=gallery.to(self.device)), rows, self.device))

    def _find_own(self, identity: Positions, camera: Positions) -> tuple[Positions, NDArray[np.bool_]]:
        """Return the columns (B, P) of each query's own identity, and which of them it skips."""
        none = len(self.columns)
        row = np.searchsorted(self.wanted, identity)
        own = np.where((identity >= 0)[:, None], self.columns_of[row], none)
        own = own[:, : max(1, int((own < none).sum(axis=1).max()))]
        return own, is_removed(self.protocol.removal, True, camera[:, None], self.camera[own]) & (own < none)

    def _measure_own(self, asked: Positions, own: Positions) -> Tensor:
        """Return the distances (B, P) of queries to the images of their own identities; any value past the last."""
        measured = torch.zeros(own.shape, device=self.device)
        for begin in range(0, len(own), _MEASURED_AT_ONCE):
            part = slice(begin, begin + _MEASURED_AT_ONCE)
            columns = np.unique(own[part].clip(max=len(self.columns) - 1))
            place = np.searchsorted(columns, own[part]).clip(max=len(columns) - 1)
            block = self.distances(asked[part], self.columns[columns], None)
            measured[part] = block.gather(1, torch.from_numpy(place).to(self.device))
        return measured


class _Rows:
    """Some queries of a block, and what they have seen of the gallery so far.

    Args:
        view: The galleries.
        part: Which queries of the block.
        own: (b, P) columns of their own identities that they do not skip; past the last, the number of columns.
        measured: (b, P) their distances, or None where the only chunk tells them.
    """

    def __init__(self, view: _View, part: slice, own: Tensor, measured: Tensor | None) -> None:
        self.view, self.part, self.own = view, part, own
        self.width = max(_SORTED_AT_ONCE, 4 * own.shape[1])
        trials = view.member.shape[1]
        self.ahead = torch.zeros(*own.shape, trials, device=view.device)
        self.passed = torch.zeros(trials, len(own), device=view.device)
        #: (b, P) keys of the own images, ascending.
        self.key = torch.empty(0)
        if measured is not None:
            keys = _make_keys(measured, view.tie[own], 1)[:, : own.shape[1]]
            self.key = _sort_rows(torch.where(own == len(view.columns), _LAST, keys))

    def meet(self, chunk: _Chunk, block: Tensor) -> None:
        """Count the images of a chunk, at (B, C) distances, that rank ahead of each true match."""
        keys = _make_keys(block[self.part], chunk.tie, self.width)
        if not self.key.numel():
            self.key = _sort_rows(keys.gather(1, self.own))
        self.ahead += _count_below(keys, self.key, self.view.members, self.width)
        if chunk.slots:
            # An identity is ahead of the first true match where its nearest image is.
            first = self.key.gather(1, self.true_match().to(torch.uint8).argmax(dim=1))
            by_column = keys.T.contiguous()
            nearest = by_column.new_full((len(chunk.trial), len(keys)), _LAST)
            for columns in chunk.slots:
                head = nearest[: len(columns)]
                torch.minimum(head, by_column.index_select(0, columns), out=head)
            columns, numbers = chunk.rest
            rest = by_column.index_select(0, columns)
            nearest.scatter_reduce_(0, numbers[:, None].expand_as(rest), rest, "amin")
            self.passed.index_add_(0, chunk.trial, (nearest < first.T.index_select(0, chunk.trial)).float())

    def true_match(self) -> Tensor:
        """Return (b, P, T), 1 where an own image is a true match in a trial, in the order of ``key``."""
        if self.view.members is None:
            return (self.key < _LAST).float()[:, :, None].expand_as(self.ahead)
        columns = (self.key & _LOW).clamp_(max=len(self.view.columns))  # the only chunk's columns are in tie order
        return self.view.members.index_select(0, columns.flatten()).view_as(self.ahead)

    def matches(self, gallery: Tensor) -> TrueMatches:
        """Return the true matches, after all chunks; ``gallery`` holds the (B, T) numbers of images that are seen."""
        true = self.true_match()
        number = true.sum(dim=1).long()
        rank = torch.where(true > 0, self.ahead + 1, torch.inf).transpose(1, 2).double().contiguous()
        rank = _sort_rows(rank)[:, :, : self.view.most]
        passed = (self.passed.T + 1).double().masked_fill(number == 0, torch.inf)
        first = passed if self.view.protocol.cmc == "identity" else rank[:, :, 0]
        return TrueMatches(rank, number, first, gallery[self.part])


def _make_keys(distance: Tensor, tie: Tensor, width: int) -> Tensor:
    """Return int64 keys of (b, C) distances, filled up behind, by one column at least, to a multiple of ``width``."""
    bits = to_ordered_bits(distance)
    height, count = distance.shape
    keys = torch.empty(height, (count // width + 1) * width, dtype=torch.int64, device=distance.device)
    torch.bitwise_or(bits.long() << 32, tie, out=keys[:, :count])
    keys[:, count:] = _LAST
    return keys


def _sort_rows(values: Tensor) -> Tensor:
    """Return values that ascend along the last dimension."""
    if values.device.type == "cpu":  # NumPy sorts plain numbers with vector instructions, several times as fast
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
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
    order = (ordered & _LOW).clamp_(max=len(members) - 1)
    between = functional.embedding_bag(order.flatten(), members, start.flatten(), mode="sum")
    between = between.view(*ordered.shape[:2], -1, members.shape[1])[:, :, :-1].sum(dim=1)
    # On a GPU, PyTorch's deterministic mode refuses running sums of floats, whose rounding depends on the order.
    return between.cumsum(dim=1) if keys.device.type == "cpu" else between.int().cumsum(dim=1).float()


def _group(group: Positions, groups: int) -> Positions:
    """Return (groups, largest group) members of each group in ascending order, filled up with ``len(group)``."""
    order = np.argsort(group, kind="stable")
    size = np.bincount(group, minlength=groups)
    place = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    table = np.full((groups, int(size.max(initial=1))), len(group))
    table[group[order], place] = order
    return table


def _cut(label: Positions) -> Iterator[slice]:
    """Yield chunks of the columns with these labels; several chunks end where an identity does."""
    ends = np.append(np.flatnonzero(np.diff(label)) + 1, len(label))
    begin, end = 0, len(label) if len(label) <= WIDEST_CHUNK else 0
    while begin < len(label):
        if end <= begin:
            last = np.searchsorted(ends, begin + WIDEST_CHUNK, side="right") - 1
            end = int(ends[max(last, np.searchsorted(ends, begin + 1))])
        yield slice(begin, end)
        begin = end
