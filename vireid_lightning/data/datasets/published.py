"""How many identities and images the datasets' authors published, to compare a folder with."""

from __future__ import annotations

from dataclasses import dataclass

from vireid_lightning.data.datasets.base import Split
from vireid_lightning.types import INFRARED, VISIBLE


@dataclass(frozen=True)
class PublishedSplit:
    """The published size of one split.

    Attributes:
        identities: Number of identities; None where the authors give none.
        images: (modality, camera) -> number of images; camera None stands for all cameras together.
    """

    identities: int | None
    images: dict[tuple[int, int | None], int]


def _sysu_mm01(identities: int, cameras: dict[int, int]) -> PublishedSplit:
    infrared = (3, 6)
    return PublishedSplit(identities, {(INFRARED if c in infrared else VISIBLE, c): n for c, n in cameras.items()})


#: Name of the dataset -> split -> published size. SYSU-MM01 and RegDB were counted from their index files; the others
#: are the counts of the papers. Of LLCM's by modality only the sum, 46,767, was found in a source. Market-1501's test
#: images are 3,368 queries and 15,913 gallery images (19,732 without the 3,819 bad detections), MSMT17's 11,659 and
#: 82,161.
PUBLISHED: dict[str, dict[Split, PublishedSplit]] = {
    "SYSU-MM01": {
        "train": _sysu_mm01(296, {1: 4721, 2: 5753, 3: 5929, 4: 4821, 5: 4989, 6: 4000}),
        "val": _sysu_mm01(99, {3: 1980, 4: 990, 5: 984}),
        "test": _sysu_mm01(96, {1: 1374, 2: 1565, 3: 1883, 4: 1918, 5: 1918, 6: 1920}),
    },
    "RegDB": {
        "train": PublishedSplit(206, {(VISIBLE, 1): 2060, (INFRARED, 2): 2060}),
        "test": PublishedSplit(206, {(VISIBLE, 1): 2060, (INFRARED, 2): 2060}),
    },
    "LLCM": {
        "train": PublishedSplit(713, {(VISIBLE, None): 16946, (INFRARED, None): 13975}),
        "test": PublishedSplit(351, {(VISIBLE, None): 8680, (INFRARED, None): 7166}),
    },
    "SYSU-MM02": {
        "train": PublishedSplit(None, {(VISIBLE, 1): 7440, (INFRARED, None): 13614}),
        "test": PublishedSplit(118, {(VISIBLE, 1): 2360, (INFRARED, None): 2360}),
    },
    "Market-1501": {
        "train": PublishedSplit(751, {(VISIBLE, None): 12936}),
        "test": PublishedSplit(750, {(VISIBLE, None): 19281}),
    },
    "MSMT17": {
        "train": PublishedSplit(1041, {(VISIBLE, None): 32621}),
        "test": PublishedSplit(3060, {(VISIBLE, None): 93820}),
    },
}
