from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from vireid_lightning.data.images.reading import read_image
from vireid_lightning.deployment import Gallery
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings

HOSTILE = '<script>alert("1")</script> [bold]&amp;.png'


@pytest.fixture
def found(images):
    paths = [f"camera1/{number:02d}.png" for number in range(11)] + [HOSTILE]
    about = {
        "root": str(images),
        "thresholds": {"stated_rate": 0.01, "distance": "cosine", "infrared": {"threshold": 0.5}},
        "method": "AGW",
    }
    rows = torch.nn.functional.normalize(torch.linspace(-1, 1, 12)[:, None] + torch.randn(12, 4) / 10)
    gallery = Embeddings(rows, torch.arange(12), torch.ones(12).long(), torch.zeros(12).long(), paths, about=about)
    query = Embeddings(
        torch.stack([rows[11], -rows[0] + torch.tensor([9.0, -9, 9, -9]), rows[1]]),
        [-1, -1, -1],
        modality=[1, 1, 0],
        path=[f"camera3/{number:02d}.png" for number in range(3)],
        about={"root": str(images)},
    )
    return Gallery(gallery).search(query, k=12)


def test_plain_values_say_what_was_found_and_what_the_threshold_says(found):
    first, second, third = found.to_dicts()
    assert first["query"] == {"path": "camera3/00.png", "modality": "infrared", "camera": None, "identity": None}
    assert first["in_gallery"] is True
    assert [item["rank"] for item in first["results"]] == list(range(1, 13))
    near = [item["below_threshold"] for item in first["results"]]
    assert near == [item["distance"] < 0.5 for item in first["results"]]
    assert any(near)
    assert not all(near)
    assert second["in_gallery"] is False  # it points nowhere near any image
    assert (third["in_gallery"], third["threshold"]) == (None, None)  # no threshold for visible queries
    assert {item["below_threshold"] for item in third["results"]} == {None}


def test_the_table_fits_80_columns_and_markup_is_text(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]&amp;.png" in text
    assert "Not in the gallery: no image is nearer than the threshold 0.5000 (1 % false" in text
    assert text.rstrip().endswith("not a proof of identity.")


def test_long_names_and_control_characters_stay_on_their_line():
    rows = Embeddings(torch.eye(2), [0, 1], path=["a" * 200 + "/end.png", "b\x1b[31m\n.png"])
    text = str(Gallery(rows).search(rows, 2))
    assert max(map(len, text.splitlines())) <= 80
    assert "/end.png" in text
    assert "\x1b" not in text


def test_json_lines(found, tmp_path):
    found.write_json_lines(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(found.to_dicts())
    with pytest.raises(VIReIDError, match="exists and is never overwritten"):
        found.write_json_lines(tmp_path / "a.jsonl")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        assert not [name for name, _ in attributes if name.startswith("on")]


def test_the_page_holds_all_it_shows_and_hostile_names_are_text(found, tmp_path):
    found.write_html(tmp_path / "a.html", lambda path, modality: read_image(path))
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("section") == 3
    assert page.tags.count("img") == 3 * 12  # the query and 11 images; the hostile one is no file
    assert text.count("The image is not here.") == 3
    assert not re.search(r"https?://", text)
    for source in page.sources:
        image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
        assert max(image.size) <= 144
    assert len(text) < 36 * 8000 + 20_000
    with pytest.raises(VIReIDError, match="exists and is never overwritten"):
        found.write_html(tmp_path / "a.html", lambda path, modality: read_image(path))


def test_galleries_without_paths():
    rows = Embeddings(torch.eye(2), [0, 1])
    (row, _) = Gallery(rows).search(rows, 2).to_dicts()
    assert [item["path"] for item in row["results"]] == ["#0", "#1"]
    assert np.isnan(Gallery(rows).search(rows).threshold).all()
