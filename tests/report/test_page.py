from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from references.report_content import HOSTILE, make_content, make_embeddings, write_curves, write_images

from vireid_lightning.errors import VIReIDError
from vireid_lightning.report import write_report
from vireid_lightning.report.page import render_page


class Elements(HTMLParser):
    """Lists all elements and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def read_images(page):
    return json.loads(re.search(r'id="images">(.*?)</script>', page, re.DOTALL).group(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_images(root, make_embeddings())
    write_curves(root / "metrics.csv")
    return root


@pytest.fixture
def _no_charts(monkeypatch):
    """Leave out the charts, which take the most time."""
    monkeypatch.setattr("vireid_lightning.report.page._draw_charts", lambda content: {})


@pytest.fixture(scope="module")
def page(folder):
    return render_page(make_content(folder, curves=folder / "metrics.csv"))


def test_everything_is_in_the_one_file(page):
    for tag, attributes in Elements(page).found:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
    assert "url(http" not in page
    assert "@import" not in page
    charts = [attributes["id"] for tag, attributes in Elements(page).found if attributes.get("class") == "chart"]
    assert charts == ["cmc", "roc", "pairs", "map", "training"]
    assert "missing on disk" not in page


def test_names_of_elements_are_unique(page):
    names = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(names) == len(set(names))


def test_scores_are_those_of_the_table(page):
    content = make_content()
    for row in content.table:
        assert f"{row.mAP:.2f}" in page
    assert f"±{content.table[0].deviation('mAP'):.2f}" in page
    assert content.table[0].gallery_hash in page


def test_images_are_small_pictures_of_the_files(page, folder):
    images = read_images(page)
    embeddings = make_embeddings()
    assert len(images) == 60
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(images["7"]), dtype=np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imread(str(folder / embeddings.path[7]))
    assert decoded.shape == (112, 56, 3)
    assert np.abs(decoded.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 4


def test_colours_follow_the_theme(page):
    assert "#0102" not in page  # the colours that stand for variables are all replaced
    assert page.count("var(--series-0)") > 5


@pytest.mark.usefixtures("_no_charts")
def test_a_page_keeps_within_its_size(folder):
    content = make_content(folder)
    bare = len(render_page(make_content()).encode())
    bound = (bare + 60_000) / 2**20
    page = render_page(content, max_mb=bound)
    assert len(page.encode()) <= bound * 2**20
    left = int(re.search(r"(\d+) images are left out, so that the page stays below", page).group(1))
    assert 0 < left < 60
    assert left + len(read_images(page)) == 60
    with pytest.raises(VIReIDError, match=r"without images, more than the 0\.01"):
        render_page(content, max_mb=0.01)


@pytest.mark.usefixtures("_no_charts")
def test_a_page_without_images_says_so(tmp_path):
    page = render_page(make_content(tmp_path, lists=3))
    assert re.search(r"\d+ images of the rank lists are missing on disk or cannot be read", page)
    assert read_images(page) == {}
    assert "no metrics.csv" in page
    assert "The rank lists have no images" in render_page(make_content(lists=3))


@pytest.mark.usefixtures("_no_charts")
def test_paths_do_not_lead_out_of_the_folder(folder, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    write_images(tmp_path, make_embeddings())
    content = make_content(inner, lists=2)
    content.embeddings.path = [f"../{path}" for path in content.embeddings.path]
    assert read_images(render_page(content)) == {}
    content.embeddings.path = [f"{tmp_path}/{path[3:]}" for path in content.embeddings.path]
    assert read_images(render_page(content)) == {}


def test_hostile_names_are_inert():
    page = render_page(make_content(hostile=True))
    elements = Elements(page).found
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert not [attributes for _, attributes in elements if any(name.startswith("on") for name in attributes)]
    assert {attributes.get("alt") for tag, attributes in elements if tag == "img"} >= {
        f"cam1/{HOSTILE[0]}/0.png",
        f"cam6/{HOSTILE[1]}/15.png",
    }
    assert "651100193" not in page  # no expression of a template was evaluated
    assert not set("\x1b\x07\u202e") & set(page)


@pytest.mark.usefixtures("_no_charts")
def test_a_report_is_kept_when_another_is_written(tmp_path):
    content = make_content(lists=2)
    assert write_report(tmp_path / "report.html", content) is None
    assert write_report(tmp_path / "report.html", content) == tmp_path / "report_1.html"
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "report_1.html").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
