"""What the visible-only datasets share: methods learn from them, and cross-modality search is not scored on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import VISIBLE, Sample


class VisibleOnlyDataset(ReIDDataset):
    """A dataset of visible images only: :meth:`samples` and :meth:`identities` work, :meth:`protocols` cannot."""

    default_protocol: str = ""
    modalities: ClassVar[tuple[int, ...]] = (VISIBLE,)

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> NoReturn:
        """Refuse: a dataset without infrared images has no cross-modality protocol.

        Raises:
            VIReIDError: Always.
        """
        raise VIReIDError(
            f"{self.name} holds visible images only, so it has no cross-modality protocol. Use it as a source to train "
            "from, and evaluate on a dataset with both modalities."
        )
