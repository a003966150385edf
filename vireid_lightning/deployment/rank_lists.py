"""What a search found: rank lists as plain values, a table of 80 columns, JSON lines or a page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.terminal import make_table, to_text
from vireid_lightning.printable import make_printable
from vireid_lightning.types import MODALITIES, UNKNOWN

#: What every output says of a rank list.
ADVICE = "A rank list is a suggestion to be checked by a person, not a proof of identity."

_THUMBNAIL = (144, 144)  # the most pixels that an image of the page has, width and height
_QUALITY = 80

#: Reads an image file of a modality as (H, W, 3) uint8, RGB.
ReadImage = Callable[[Path, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class RankLists:
    """The gallery images nearest to each of Q queries.

    Attributes:
        query: Embeddings of the queries.
        gallery: Embeddings of the gallery.
        position: (Q, k) positions in the gallery, the nearest first.
        distance: (Q, k) float32 distances.
        threshold: (Q,) distance from which on an image is taken to show somebody else; NaN where none was chosen.
        measure: ``cosine``, whose distance is 1 - cos, or ``euclidean``.
    """

    query: Embeddings
    gallery: Embeddings
    position: NDArray[np.int64]
    distance: NDArray[np.float32]
    threshold: NDArray[np.float64]
    measure: str

    def __len__(self) -> int:
        return len(self.query)

    def __str__(self) -> str:
        console = Console(width=80, file=io.StringIO(), force_terminal=False)
        self.print(console)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
        return text

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield for each query plain values: what was asked, whether it is in the gallery (null: not known), ranks."""
        for number in range(len(self)):
            limit = float(self.threshold[number])
            known = not np.isnan(limit)
            results = [
                {
                    "rank": rank,
                    **_describe(self.gallery, int(place)),
                    "distance": round(float(distance), 6),
                    "below_threshold": bool(distance < limit) if known else None,
                }
                for rank, (place, distance) in enumerate(zip(self.position[number], self.distance[number]), start=1)
            ]
            yield {
                "query": _describe(self.query, number),
                "measure": self.measure,
                "threshold": limit if known else None,
                "in_gallery": bool(self.distance[number, 0] < limit) if known else None,
                "results": results,
            }

    def write_json_lines(self, path: str | Path) -> None:
        """Write one line of JSON for each query; the file must not exist."""
        with _open_new(path) as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in self.to_dicts())

    def print(self, console: Console | None = None) -> None:
        """Print a table for each query that fits 80 columns, and what its threshold says."""
        console = console or Console()
        for row in self.to_dicts():
            console.print(_make_table(row))
            if (verdict := self._judge(row)) is not None:
                console.print(to_text(verdict), style="bold")
            console.print()
        console.print(ADVICE, highlight=False)

    def write_html(self, path: str | Path, read: ReadImage, *, root: str | Path | None = None) -> None:
        """Write one page that holds all it shows; the file must not exist.

        Args:
            path: The page.
            read: Reads an image, such as :meth:`~vireid_lightning.deployment.embedder.Embedder.prepare`.
            root: Folder of the gallery's images; None: the one that its embeddings name.
        """
        from jinja2 import Environment, PackageLoader

        folders = {"query": _find_root(self.query, None), "gallery": _find_root(self.gallery, root)}
        rows = []
        for row in self.to_dicts():
            row["verdict"] = self._judge(row)
            row["query"]["image"] = _encode(read, folders["query"], row["query"])
            for item in row["results"]:
                item["image"] = _encode(read, folders["gallery"], item)
            rows.append(row)
        templates = Environment(
            loader=PackageLoader("vireid_lightning.deployment"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        page = templates.get_template("rank_lists.html").render(
            rows=rows, about=self.gallery.about, count=len(self.gallery), measure=self.measure, advice=ADVICE
        )
        with _open_new(path) as file:
            file.write(page)

    def _judge(self, row: Mapping[str, Any]) -> str | None:
        """Return in a sentence whether the query is in the gallery, None where no threshold was chosen."""
        if row["in_gallery"] is None:
            return None
        thresholds = self.gallery.about["thresholds"]
        rate = f"{100 * thresholds['stated_rate']:g} % false positives on the validation images"
        limit = f"the threshold {row['threshold']:.4f} ({rate})"
        if row["in_gallery"]:
            near = sum(item["below_threshold"] for item in row["results"])
            return f"{near} of the {len(row['results'])} images listed are nearer than {limit}."
        return f"Not in the gallery: no image is nearer than {limit}."


def _describe(embeddings: Embeddings, row: int) -> dict[str, Any]:
    modality, camera = int(embeddings.modality[row]), int(embeddings.camera[row])
    identity = int(embeddings.identity[row])
    return {
        "path": f"#{row}" if embeddings.path is None else embeddings.path[row],
        "modality": MODALITIES[modality] if modality in (0, 1) else None,
        "camera": None if camera == UNKNOWN else camera,
        "identity": None if identity == UNKNOWN else identity,
    }


def _make_table(row: Mapping[str, Any]) -> Table:
    """Return a query's table; a path that is too long loses its beginning, which says less than its end."""
    kind = "" if row["query"]["modality"] is None else f" ({row['query']['modality']})"
    table = make_table(None, "")
    table.title = Text(_shorten(f"{row['query']['path']}{kind}", 78))
    table.caption = None
    table.add_column("Rank", justify="right")
    table.add_column(to_text(f"Distance ({row['measure']})"), justify="right")
    table.add_column("Image", no_wrap=True)
    table.add_column("Camera", justify="right")
    for item in row["results"]:
        mark = " *" if item["below_threshold"] else ""
        cells = str(item["rank"]), f"{item['distance']:.4f}{mark}", _shorten(item["path"], 40), item["camera"]
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    return table


def _shorten(text: str, width: int) -> str:
    text = make_printable(text)
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _find_root(embeddings: Embeddings, given: str | Path | None) -> Path:
    return Path(given if given is not None else str(embeddings.about.get("root") or "."))


def _encode(read: ReadImage, root: Path, item: Mapping[str, Any]) -> str | None:
    """Return a small JPEG as a data URL, None where the image cannot be read here."""
    from PIL import Image

    try:
        modality = MODALITIES.index(item["modality"]) if item["modality"] in MODALITIES else 0
        image = Image.fromarray(read(root / item["path"], modality))
    except VIReIDError:
        return None
    image.thumbnail(_THUMBNAIL)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _open_new(path: str | Path) -> io.TextIOWrapper:
    """Open a text file that must not exist."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return path.open("x", encoding="utf-8")
    except FileExistsError:
        raise VIReIDError(f"{path} exists and is never overwritten; remove it or give another name.") from None
