"""Where the right images rank, for the galleries of many trials at once, from one block of distances.

A row of distances is sorted once, whatever the number of trials. The images of the query's own identity cut the sorted
row into segments; a sum over each segment of the rows of the (G, T) membership matrix then says, for all T galleries
together, how many images stand ahead of each right image. Ranks of right images are all that CMC, AP and INP need.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from vireid_lightning.metrics.parallel import map_parts
from vireid_lightning.protocols import CMC, SYSU_GALLERY_CAMERA, SYSU_QUERY_CAMERA, Removal

#: Ranks are held in 16 bits here; a larger gallery goes through :mod:`vireid_lightning.metrics.streaming`.
LARGEST_GALLERY = 2**15 - 1

# Distances that a CPU thread works on at a time, so that what it makes of them stays in the cache.
_VALUES_AT_ONCE = 2**19


@dataclass(frozen=True)
class QueryScores:
    """What Q queries score in the galleries of T trials.

    Attributes:
        first: (Q, T) int64, rank of the first right image as the CMC counts it, from 1; 0 where no right image is left.
        average_precision: (Q, T) float64, mean over the right images j = 1, 2, ... in ranked order of j / rank_j.
        inverse_negative_penalty: (Q, T) float64, number of right images / rank of the last.
        tied: (Q,) bool, whether a right image has the distance of another image, so that the order of ties may count.
    """

    first: Tensor
    average_precision: Tensor
    inverse_negative_penalty: Tensor
    tied: Tensor

    @staticmethod
    def empty(queries: int, trials: int) -> QueryScores:
        """Return scores of queries without a match, to be filled by :meth:`put`."""
        return QueryScores(
            torch.zeros(queries, trials, dtype=torch.int64),
            torch.zeros(queries, trials, dtype=torch.float64),
            torch.zeros(queries, trials, dtype=torch.float64),
            torch.zeros(queries, dtype=torch.bool),
        )

    @staticmethod
    def concatenate(parts: Sequence[QueryScores]) -> QueryScores:
        """Put scores of blocks of queries together."""
        return QueryScores(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def rows(self, rows: Tensor) -> QueryScores:
        """Return the scores of some queries."""
        return QueryScores(*(getattr(self, name)[rows] for name in _FIELDS))

    def put(self, rows: Tensor, trials: Tensor | slice, scores: QueryScores) -> None:
        """Write the scores of a block of queries, from any device, into the rows and trials named."""
        trials = torch.arange(self.first.shape[1])[trials]
        rows = rows.cpu()
        where = (rows[:, None], trials[None, :])
        self.first[where] = scores.first.cpu()
        self.average_precision[where] = scores.average_precision.cpu()
        self.inverse_negative_penalty[where] = scores.inverse_negative_penalty.cpu()
        self.tied[rows] = scores.tied.cpu()


_FIELDS = tuple(field.name for field in fields(QueryScores))


def rank_order(distance: Tensor) -> Tensor:
    """Return the columns of each row in ascending distance, equal distances in the order of the columns.

    Args:
        distance: (Q, G) finite.

    Returns:
        (Q, G) int64.
    """
    if distance.device.type != "cpu" or distance.dtype != torch.float32:
        return distance.sort(dim=1, stable=True).indices
    # NumPy sorts plain integers with vector instructions, several times as fast as a sort that carries indices along.
    # So distance and column share one 64-bit key: the distance's bits above, as an integer of the same order, the
    # column below.
    keys = torch.empty(distance.shape, dtype=torch.int64)
    halves = keys.view(torch.int32).view(*distance.shape, 2)
    low = 0 if sys.byteorder == "little" else 1
    halves[..., low] = torch.arange(distance.shape[1], dtype=torch.int32)
    bits = (distance + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0: both zeros tie
    torch.bitwise_xor(bits, (bits >> 31).bitwise_and_(0x7FFFFFFF), out=halves[..., 1 - low])
    keys.numpy().sort(axis=1)
    return keys.bitwise_and_(0xFFFFFFFF)


@dataclass(frozen=True)
class _Tables:
    """What queries of one kind see: the members left to them, and each trial's images by identity."""

    member: Tensor  # (G + 1, T) float32, 1 where a column is in a trial's gallery; the last row is all zero
    slots: list[Tensor]  # slots[s]: column of the s-th image of every (trial, identity) with more than s, longest first
    lookup: Tensor  # (identity trials, I) row of a (trial, identity) in that order, one past the end where absent


class BlockScorer:
    """Scores blocks of queries against the galleries of several trials.

    Args:
        identity: (G,) identity of each column of the distance blocks; negative is nobody, never right.
        camera: (G,) camera of each column; -1 unknown.
        member: (G, T) bool, which columns are in the gallery of each trial.
        removal: T rules of which images a query skips.
        cmc: T times what a rank of the CMC curve counts.

    Example:
        >>> gallery = torch.tensor([7, 8]), torch.tensor([1, 1]), torch.ones(2, 1, dtype=torch.bool)
        >>> scorer = BlockScorer(*gallery, removal=["none"], cmc=["image"])
        >>> scorer(torch.tensor([[0.4, 0.2]]), torch.tensor([7]), torch.tensor([3])).first
        tensor([[2]])
    """

    def __init__(
        self, identity: Tensor, camera: Tensor, member: Tensor, removal: Sequence[Removal], cmc: Sequence[CMC]
    ) -> None:
        device = identity.device
        self.member, self.camera = member, camera
        self.by_place = torch.tensor([rule == "sysu" for rule in removal], device=device)
        self.by_camera = torch.tensor([rule == "same-camera" for rule in removal], device=device)
        self.counts_identities = torch.tensor([rule == "identity" for rule in cmc], device=device)
        # Images of nobody count as an identity each.
        nobody = -1 - torch.arange(1, len(identity) + 1, device=device)
        self.identities, self.label = torch.where(identity < 0, nobody, identity).unique(return_inverse=True)
        self.columns = columns_by_group(self.label, len(self.identities))
        self._tables: dict[bool, _Tables] = {}

    @property
    def bytes_per_query(self) -> int:
        """About how much memory a query of a block takes, its row of distances included."""
        gallery, trials = self.member.shape
        members = int(self.member.sum()) if self.counts_identities.any() else 0
        return (
            gallery * 28 + self.columns.shape[1] * (trials * 24 + 32) + min(members, len(self.identities) * trials) * 8
        )

    def __call__(self, distance: Tensor, identity: Tensor, camera: Tensor) -> QueryScores:
        """Score a block.

        Args:
            distance: (Q, G) distances, or anything that grows with them along a row.
            identity: (Q,) identities of the queries.
            camera: (Q,) cameras of the queries.

        Returns:
            Scores of (Q, T) on the device of ``distance``.
        """
        skips = (camera == SYSU_QUERY_CAMERA) & bool(self.by_place.any())
        if not bool(skips.any()) or bool(skips.all()):
            seen = self._seen(bool(skips.any()))
            step = max(1, _VALUES_AT_ONCE // distance.shape[1]) if distance.device.type == "cpu" else len(distance)
            parts = [slice(begin, begin + step) for begin in range(0, len(distance), step)]
            scores = map_parts(
                lambda part: self._score(distance[part], identity[part], camera[part], seen), parts, distance.device
            )
            return QueryScores.concatenate(scores)
        scores = [self(distance[rows], identity[rows], camera[rows]) for rows in (~skips, skips)]
        back = torch.cat([(~skips).nonzero(), skips.nonzero()]).squeeze(1).argsort()
        return QueryScores.concatenate(scores).rows(back)

    def _seen(self, skips_place: bool) -> _Tables:
        """Return the tables of queries that skip the gallery in their own place, or of those that do not."""
        if skips_place not in self._tables:
            member = self.member
            if skips_place:
                member = member & ~((self.camera == SYSU_GALLERY_CAMERA)[:, None] & self.by_place[None, :])
            padded = functional.pad(member.float(), (0, 0, 0, 1))
            self._tables[skips_place] = _Tables(padded, *self._segments(member[:, self.counts_identities]))
        return self._tables[skips_place]

    def _segments(self, member: Tensor) -> tuple[list[Tensor], Tensor]:
        """List the columns of every (trial, identity), the pairs with most images first."""
        trial, column = member.T.nonzero(as_tuple=True)
        pair, group = (trial * len(self.identities) + self.label[column]).unique(return_inverse=True)
        shape = (member.shape[1], len(self.identities))
        lookup = torch.full((shape[0] * shape[1],), len(pair), device=member.device)
        if not len(pair):
            return [], lookup.view(shape)
        table = columns_by_group(group, len(pair))
        size = (table < len(group)).sum(dim=1)
        longest_first = size.argsort(descending=True, stable=True)
        lookup[pair[longest_first]] = torch.arange(len(pair), device=member.device)
        slots = [column[table[longest_first[: int((size > slot).sum())], slot]] for slot in range(table.shape[1])]
        return slots, lookup.view(shape)

    def _score(self, distance: Tensor, identity: Tensor, camera: Tensor, seen: _Tables) -> QueryScores:
        queries, gallery = distance.shape
        trials = self.member.shape[1]
        order = rank_order(distance)
        place = torch.arange(gallery, device=order.device, dtype=torch.int16).expand(queries, -1)
        place = torch.empty_like(order, dtype=torch.int16).scatter_(1, order, place)

        # Columns of the query's own identity, in ranked order; past the last: column G at place G.
        label = torch.searchsorted(self.identities, identity).clamp(max=len(self.identities) - 1)
        known = (self.identities[label] == identity) & (identity >= 0)
        own = self.columns[label].masked_fill(~known[:, None], gallery)
        own_place = place.gather(1, own.clamp(max=gallery - 1)).long().masked_fill_(own == gallery, gallery)
        own_place, by_place = own_place.sort(dim=1)
        own = own.gather(1, by_place)

        # (Q, P, T) members of each trial up to and including each of them.
        start = functional.pad((own_place + 1).clamp_(max=gallery), (1, 0))
        start += gallery * torch.arange(queries, device=order.device)[:, None]
        ahead = functional.embedding_bag(order.flatten(), seen.member[:-1], start.flatten(), mode="sum")
        ahead = _running_count(ahead.view(queries, -1, trials)[:, :-1])
        right = seen.member[own.flatten()].view(queries, -1, trials)
        if bool(self.by_camera.any()):
            own_camera = functional.pad(self.camera, (0, 1), value=-1)[own]
            skipped = ((own_camera == camera[:, None]) & (own_camera >= 0))[:, :, None] & self.by_camera
            skipped = skipped * right
            ahead -= _running_count(skipped)
            right = right - skipped

        counted = _running_count(right)
        number = counted[:, -1].double()
        matched = number > 0
        # Before the first right image nothing is counted, so that many of the P columns come before it.
        first_own = own.shape[1] - counted.clamp(max=1).sum(dim=1).long()
        first_own.clamp_(max=own.shape[1] - 1)
        first = ahead.gather(1, first_own[:, None]).squeeze(1).long() * matched
        last = (right * ahead).amax(dim=1).double()
        precision = counted.mul_(right).div_(ahead.clamp_(min=1)).sum(dim=1, dtype=torch.float64)
        if bool(self.counts_identities.any()):
            first_place = own_place.gather(1, first_own[:, self.counts_identities])
            passed = self._identities_ahead(place, first_place, torch.where(known, label, -1), seen)
            first[:, self.counts_identities] = (passed + 1) * matched[:, self.counts_identities]
        return QueryScores(
            first, precision / number.clamp(min=1), number / last.clamp(min=1), _tied(distance, order, own, own_place)
        )

    def _identities_ahead(self, place: Tensor, first_place: Tensor, label: Tensor, seen: _Tables) -> Tensor:
        """Count, for each query and identity-counting trial, the other identities with an image ahead of the match."""
        if not seen.slots:
            return torch.zeros_like(first_place)
        by_column = place.T.contiguous()
        best = by_column.new_full((len(seen.slots[0]) + 1, by_column.shape[1]), LARGEST_GALLERY)
        for columns in seen.slots:
            head = best[: len(columns)]
            torch.minimum(head, by_column.index_select(0, columns), out=head)
        trials, identities = seen.lookup.shape
        best = best.index_select(0, seen.lookup.flatten()).view(trials, identities, -1)
        ahead = (best < first_place.T.to(torch.int16)[:, None, :]).to(torch.int16)
        own = label.clamp(min=0).expand(trials, 1, -1)
        own_ahead = ahead.gather(1, own).squeeze(1) * (label >= 0)
        return (ahead.sum(dim=1, dtype=torch.int16) - own_ahead).T.long()


def _running_count(values: Tensor) -> Tensor:
    """Return the running sums over dimension 1 of whole numbers, as floats."""
    if values.device.type == "cpu":
        return values.cumsum(dim=1)
    # On a GPU, PyTorch's deterministic mode refuses running sums of floats, whose rounding depends on the order.
    return values.int().cumsum(dim=1, dtype=torch.int32).float()


def columns_by_group(group: Tensor, groups: int) -> Tensor:
    """Return (groups, largest group) members of each group in ascending order, filled up with ``len(group)``."""
    order = group.argsort(stable=True)
    size = torch.bincount(group, minlength=groups)
    slot = torch.arange(len(group), device=group.device) - (size.cumsum(0) - size)[group[order]]
    table = torch.full((groups, int(size.max()) if groups else 0), len(group), device=group.device)
    table[group[order], slot] = order
    return table


def _tied(distance: Tensor, order: Tensor, own: Tensor, own_place: Tensor) -> Tensor:
    """Return (Q,) whether an image of the query's identity is as far as the image ranked just before or behind it."""
    gallery = distance.shape[1]
    real = own < gallery
    value = distance.gather(1, own.clamp(max=gallery - 1))
    tied = torch.zeros_like(real)
    for step in (-1, 1):
        beside = own_place + step
        inside = real & (beside >= 0) & (beside < gallery)
        column = order.gather(1, beside.clamp(0, gallery - 1))
        tied |= inside & (distance.gather(1, column) == value)
    return tied.any(dim=1)
