from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from vireid_lightning.data.images.reading import BadImageError, ImageFiles, read_image
from vireid_lightning.errors import VIReIDError

FORMATS = (".jpg", ".png", ".bmp", ".webp", ".tif")


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (7, 7), 3)


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_reads_rgb(tmp_path, picture, extension):
    assert (read_image(write(tmp_path / f"ü 1{extension}", picture))[..., ::-1] == picture).all()


@pytest.mark.parametrize("extension", [".png", ".bmp", ".jpg"])
def test_reads_grayscale_as_three_equal_channels(tmp_path, picture, extension):
    image = read_image(write(tmp_path / f"gray{extension}", picture[..., 0]))
    assert image.shape == picture.shape
    assert (image == image[..., :1]).all()


def test_resizes_mixed_sizes(tmp_path, picture):
    write(tmp_path / "a.png", picture)
    write(tmp_path / "b.png", picture[:20, :30])
    files = ImageFiles(tmp_path, ["a.png", "b.png"], (48, 16))
    assert [files[position].shape for position in range(len(files))] == [(48, 16, 3)] * 2


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_file_is_named(tmp_path, picture, extension, share):
    path = write(tmp_path / f"cut{extension}", picture)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(VIReIDError, match=rf"cut\{extension}"):
        read_image(path)
    files = ImageFiles(tmp_path, [path.name], (8, 8))
    assert list(files.find_bad()) == [0]


def test_jpeg_without_its_last_byte_is_truncated(tmp_path, picture):
    path = write(tmp_path / "a.jpg", picture)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadImageError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("extension", FORMATS)
def test_trailing_bytes_are_harmless(tmp_path, picture, extension):
    path = write(tmp_path / f"a{extension}", picture)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"appended by some camera")
    assert (read_image(path) == whole).all()
    assert not ImageFiles(tmp_path, [path.name], (8, 8)).find_bad()


def test_finds_all_bad_files(tmp_path, picture):
    write(tmp_path / "good.jpg", picture)
    write(tmp_path / "good.bmp", picture)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image " * 20)
    (tmp_path / "page.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    (tmp_path / "folder.png").mkdir()
    names = ["good.jpg", "empty.jpg", "text.jpg", "absent.jpg", "good.bmp", "page.png", "folder.png"]
    bad = ImageFiles(tmp_path, names, (8, 8)).find_bad(threads=2)
    assert list(bad) == [1, 2, 3, 5, 6]
    for position, message in bad.items():
        assert str(tmp_path / names[position]) in message
    assert "is empty" in bad[1]
    assert "No such file" in bad[3]


def test_error_of_a_loading_process_is_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    loader = DataLoader(ImageFiles(tmp_path, ["empty.png"], (8, 8)), num_workers=1)
    with pytest.raises(BadImageError) as caught:
        list(loader)
    assert str(caught.value).startswith("The image file")
    assert "Traceback" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
