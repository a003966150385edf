from __future__ import annotations

import cv2
import numpy as np
import pytest
from references.report_content import make_content, make_embeddings, write_curves, write_images

from vireid_lightning.errors import VIReIDError
from vireid_lightning.report import write_figures
from vireid_lightning.report.charts import PAPER, plain_style
from vireid_lightning.report.figures import draw_rank_lists, list_drawers

NAMES = ["cmc", "roc", "pairs", "map", "training", "ranks_infrared-to-visible", "ranks_visible-to-infrared"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_images(root, make_embeddings())
    write_curves(root / "metrics.csv")
    return root


@pytest.fixture(scope="module")
def content(folder):
    return make_content(folder, lists=2, curves=folder / "metrics.csv")


@pytest.mark.slow
def test_each_figure_is_written_in_each_format(content, tmp_path):
    written = write_figures(tmp_path, content, dpi=60)
    assert [path.name for path in written] == [f"{name}.{suffix}" for name in NAMES for suffix in ("pdf", "png")]
    for path in written:
        data = path.read_bytes()
        if path.suffix == ".pdf":
            assert data.startswith(b"%PDF")
            assert b"/Type3" not in data  # letters that a reader can search for and a publisher takes
        else:
            picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
            assert picture.std() > 10


def test_the_same_content_gives_the_same_file(content, tmp_path):
    for name in ("first", "second"):
        write_figures(tmp_path / name, content, kinds=["cmc"], formats=["pdf", "svg"])
    for name in ("cmc.pdf", "cmc.svg"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_cmc_curve_is_the_mean_of_its_trials(content):
    with plain_style():
        figure = dict(list_drawers(content))["cmc"](PAPER)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for row in content.table:
        values = lines[row.name].get_ydata()
        assert values[0] == pytest.approx(row.rank1)
        assert values[9] == pytest.approx(row.mean("rank10"))
        assert values[-1] == pytest.approx(100)


def test_a_rank_list_frames_its_images(content):
    group = content.groups[0]
    with plain_style():
        figure = draw_rank_lists(group, content, PAPER)
    assert len(figure.axes) == 2 * 11
    frames = [
        axes.patches[0].get_linestyle() == "solid" or axes.patches[0].get_linestyle() == "-" for axes in figure.axes
    ]
    shown = [image.is_true is not False for item in group.lists for image in (item.query, *item.images)]
    assert frames == shown
    assert all(axes.images[0].get_array().shape == (192, 96, 3) for axes in figure.axes)


def test_missing_images_are_said_to_be(tmp_path):
    content = make_content(tmp_path, lists=1)
    with plain_style():
        figure = draw_rank_lists(content.groups[0], content, PAPER)
    assert all("no image" in [text.get_text() for text in axes.texts] for axes in figure.axes)


def test_files_are_kept_and_wrong_names_told(content, tmp_path):
    (tmp_path / "cmc.png").write_text("mine")
    with pytest.raises(VIReIDError, match=r"cmc\.png exists; give --overwrite"):
        write_figures(tmp_path, content, kinds=["cmc"])
    assert (tmp_path / "cmc.png").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["cmc.png"]
    write_figures(tmp_path, content, kinds=["cmc"], formats=["png"], dpi=40, overwrite=True)
    assert (tmp_path / "cmc.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ({"kinds": ["roc", "cnc"]}, {"formats": ["gif"]}, {"dpi": 3}):
        with pytest.raises(VIReIDError, match=r"'cnc'; choose|'gif'; choose|dpi is 3"):
            write_figures(tmp_path, content, **wrong)
