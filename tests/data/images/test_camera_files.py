"""Every kind of file that a camera writes: what comes out of each, and what is refused in one sentence."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from layout_files import write
from PIL import Image

from vireid_lightning.data import Sample
from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.headers import read_header
from vireid_lightning.data.images.intensity import IntensityRange
from vireid_lightning.data.images.opening import open_readable
from vireid_lightning.data.images.reading import (
    PIXEL_LIMIT,
    BadImageError,
    DeepImageError,
    ImageFiles,
    can_read_gif,
    read_image,
    scale_intensity,
)
from vireid_lightning.errors import VIReIDError

#: A thermal scene in counts: 14 bits of a radiometric camera, rows from cool to warm.
COUNTS = np.linspace(7300, 8240, 90 * 40).reshape(90, 40).round()
LIMITS = (7300.0, 8240.0)

#: The scene in 8 bits, by the plainest arithmetic.
SCALED = np.array([[round(float((value - 7300) / 940 * 255)) for value in row] for row in COUNTS], dtype=np.uint8)

DEEP = {
    "16-bit.png": np.uint16,
    "16-bit.tif": np.uint16,
    "16-bit.pgm": np.uint16,
    "16-bit.jp2": np.uint16,
    "signed-16-bit.tif": np.int16,
    "float-32-bit.tif": np.float32,
    "float-64-bit.tif": np.float64,
    "float.pfm": np.float32,
}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claim_png(width: int, height: int, bits: int = 8) -> bytes:
    """A whole PNG whose header claims a size; its data is short."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(params=DEEP)
def deep(request, tmp_path):
    path = tmp_path / request.param
    assert cv2.imwrite(str(path), COUNTS.astype(DEEP[request.param]))
    return path


def test_limits_scale_deep_images(deep):
    image = read_image(deep, LIMITS)
    assert image.dtype == np.uint8
    assert (image == image[..., :1]).all()
    assert (image[..., 0] == SCALED).all()
    assert len(np.unique(image)) == 256  # a division by 256 left 4 levels


def test_deep_images_without_limits_are_refused(deep):
    with pytest.raises(DeepImageError, match=r"bits, and nothing says .* --data\.intensity_range\.infrared \"\[LOW"):
        read_image(deep, modality=1)
    files = ImageFiles(deep.parent, [deep.name], (8, 8), modalities=[1], limits=((0.0, 255.0), None))
    with pytest.raises(DeepImageError, match=r"intensity_range\.infrared_percentiles"):
        files.find_bad()
    with pytest.raises(DeepImageError):
        open_readable(files, None)  # skipping is for damaged files
    with pytest.raises(DeepImageError, match="convert it to 8 bits"):
        read_image(deep)
    assert not ImageFiles(deep.parent, [deep.name], (8, 8), modalities=[1], limits=(None, LIMITS)).find_bad()


def test_what_lies_beyond_the_limits_and_what_is_no_number():
    values = np.array([[[-np.inf] * 3, [7299.0] * 3, [np.nan] * 3, [7770.0] * 3, [9000.0] * 3, [np.inf] * 3]])
    assert scale_intensity(values, LIMITS)[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255]


def test_a_deep_colour_image_keeps_its_channels(tmp_path):
    colours = np.dstack([COUNTS, COUNTS[::-1], COUNTS]).astype(np.uint16)
    for name in ("a.png", "a.tif", "a.ppm"):
        assert cv2.imwrite(str(tmp_path / name), colours[..., ::-1])
        assert (read_image(tmp_path / name, LIMITS) == np.dstack([SCALED, SCALED[::-1], SCALED])).all()
    assert cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([colours[..., ::-1], COUNTS.astype(np.uint16)]))
    assert (read_image(tmp_path / "alpha.png", LIMITS) == np.dstack([SCALED, SCALED[::-1], SCALED])).all()


def test_the_orientation_of_deep_images_is_that_of_their_exif_tag(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned to the right
    Image.fromarray(COUNTS.astype(np.uint16)).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(COUNTS.astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo={274: 6})
    for name in ("a.png", "a.tif"):
        assert (read_image(tmp_path / name, LIMITS)[..., 0] == np.rot90(SCALED, -1)).all()


def test_limits_leave_8_bits_alone(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), SCALED)
    assert (read_image(tmp_path / "a.png", LIMITS)[..., 0] == SCALED).all()


# Pictures of 8 bits, one of each kind, and what Pillow makes of them.
KINDS = {
    "gray.png": lambda picture: picture.convert("L"),
    "gray.jpg": lambda picture: picture.convert("L"),
    "gray.tif": lambda picture: picture.convert("L"),
    "bilevel.png": lambda picture: picture.convert("1"),
    "palette.png": lambda picture: picture.convert("P"),
    "palette.gif": lambda picture: picture.convert("P"),
    "colour.bmp": lambda picture: picture,
    "colour.webp": lambda picture: picture,
    "colour.ppm": lambda picture: picture,
}


@pytest.fixture
def picture():
    rows = np.linspace(0, 255, 90)[:, None] * np.ones(40)
    return Image.fromarray(np.dstack([rows, rows[::-1], rows / 2]).astype(np.uint8))


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_8_bits_are_as_pillow_reads_them(tmp_path, picture, name):
    KINDS[name](picture).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    if name.endswith("gif") and not can_read_gif():
        with pytest.raises(BadImageError, match="is a GIF, which this OpenCV cannot decode"):
            read_image(tmp_path / name)
        return
    with Image.open(tmp_path / name) as reference:
        expected = np.asarray(reference.convert("RGB"))
    assert np.abs(read_image(tmp_path / name).astype(int) - expected).max() <= 1


def test_transparency_is_dropped(tmp_path, picture):
    half = Image.new("L", picture.size, 10)
    for mode, name in (("RGBA", "a.png"), ("LA", "la.png"), ("RGBA", "a.webp")):
        with_alpha = picture.convert(mode)
        with_alpha.putalpha(half)
        with_alpha.save(tmp_path / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
        expected = picture.convert("L").convert("RGB") if mode == "LA" else picture
        assert (read_image(tmp_path / name) == np.asarray(expected)).all()


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (40, 90), (0, 255, 255, 0)).save(tmp_path / "red.tif")  # no cyan, all magenta and yellow
    Image.new("CMYK", (40, 90), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    for name in ("red.tif", "red.jpg"):
        red, green, blue = read_image(tmp_path / name).reshape(-1, 3).mean(0)
        assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize(("tag", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_a_photograph_is_upright(tmp_path, picture, tag, turns):
    exif = Image.Exif()
    exif[274] = tag
    picture.save(tmp_path / "a.jpg", quality=95, exif=exif)
    picture.save(tmp_path / "b.jpg", quality=95)
    assert (read_image(tmp_path / "a.jpg") == np.rot90(read_image(tmp_path / "b.jpg"), turns)).all()


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    sizes = {
        "a.png": claim_png(30_000, 30_000),
        "a.bmp": b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 30_000, -30_000) + b"\0" * 100,
        "a.jpg": b"\xff\xd8\xff\xe0\0\4ab\xff\xff\xc2\0\x0b\x08" + struct.pack(">HH", 30_000, 30_000) + b"\0\xff\xd9",
        "a.webp": b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (29_999).to_bytes(3, "little") * 2,
        "a.gif": b"GIF89a" + struct.pack("<HH", 30_000, 30_000),
        "a.pgm": b"P5\n# a camera\n30000 30000\n255\n",
        "a.tif": b"MM\0*\0\0\0\x08\0\2" + struct.pack(">HHIIHHII", 256, 4, 1, 30_000, 257, 4, 1, 30_000),
    }
    for name, content in sizes.items():
        write(tmp_path / name, content)
        with pytest.raises(BadImageError, match=r"has 30000 x 30000 pixels, more than the limit of 100 megapixels\."):
            read_image(tmp_path / name)
    assert list(ImageFiles(tmp_path, list(sizes), (8, 8)).find_bad()) == list(range(len(sizes)))
    assert PIXEL_LIMIT == 100_000_000


def test_headers_agree_with_what_is_decoded(tmp_path, picture):
    for name in KINDS:
        KINDS[name](picture).save(tmp_path / name)
    big = np.zeros((90, 40, 3), dtype=np.uint8)
    for name in ("b.jp2", "b.tif", "lossy.webp", "b.hdr"):
        assert cv2.imwrite(str(tmp_path / name), big.astype(np.float32) if name.endswith("hdr") else big)
    picture.save(tmp_path / "big.tif", big_tiff=True)
    for path in sorted(tmp_path.iterdir()):
        header = read_header(path.read_bytes())
        assert header is not None, path.name
        assert (header.width, header.height, header.bits) == (40, 90, 32 if path.suffix == ".hdr" else 8), path.name


def test_cut_headers_are_no_headers(tmp_path, picture):
    for name in KINDS:
        KINDS[name](picture).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for length in range(40):
            header = read_header(content[:length])
            assert header is None or (header.width, header.height) == (40, 90), (name, length)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of POSIX systems")
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    messages = {
        "pipe.jpg": "is no regular file but a device, pipe or socket",
        "folder.png": "is no regular file but a folder",
        "zero.jpg": "is no regular file but a device, pipe or socket",
        "nul\0.jpg": r"nul\\x00\.jpg' cannot be read, as its name holds a NUL byte",
        "loop.jpg": "cannot be read",
    }
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, message in messages.items():
        with pytest.raises(BadImageError, match=message):
            read_image(tmp_path / name)
        with pytest.raises(BadImageError, match=message):
            ImageCache(tmp_path / "cache", ImageFiles(tmp_path, [name], (8, 8)))
    bad = ImageFiles(tmp_path, list(messages), (8, 8)).find_bad()
    assert list(bad) == list(range(len(messages)))
    assert not any("\0" in problem for problem in bad.values())


def test_a_file_of_no_known_format_is_named(tmp_path):
    for content in (b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.7" * 20, b"\0" * 200, b"Pickle", b"II*\0\xff\xff\xff\xff"):
        with pytest.raises(BadImageError, match=r"is not an image of a known format \(JPEG, PNG, TIFF"):
            read_image(write(tmp_path / "a.png", content))


# The range.


def test_percentiles_are_those_of_the_training_images(tmp_path):
    generator = np.random.default_rng(0)
    samples, values = [], []
    for number in range(6):
        pixels = generator.integers(7000, 9000, (30, 20), dtype=np.uint16)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        samples.append(Sample(f"{number}.png", number, number % 2, 1))
        values.append(pixels)
    write(tmp_path / "damaged.png", b"\x89PNG\r\n\x1a\n")
    samples.append(Sample("damaged.png", 9, 1, 1))

    class Listing:
        root = tmp_path

        def samples(self, split):
            assert split == "train"
            return samples

    visible, infrared = IntensityRange(infrared_percentiles=(1, 99)).check().measure(Listing())
    assert visible is None
    assert infrared == tuple(np.percentile(np.stack(values[1::2]), (1, 99)))
    assert IntensityRange(visible=(0, 65535)).measure(Listing()) == ((0.0, 65535.0), None)

    samples[:] = [Sample("8.png", 1, 1, 1)]
    assert cv2.imwrite(str(tmp_path / "8.png"), np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(VIReIDError, match="none of the 1 infrared training images looked at has more than 8 bits"):
        IntensityRange(infrared_percentiles=(1, 99)).measure(Listing())
    assert cv2.imwrite(str(tmp_path / "8.png"), np.full((9, 9), 7000, dtype=np.uint16))
    with pytest.raises(VIReIDError, match="are one value, 7000"):
        IntensityRange(infrared_percentiles=(1, 99)).measure(Listing())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"infrared": (8240, 7300)}, r"intensity_range\.infrared is \[8240, 7300\]: give two ascending values"),
        ({"visible": (1, 1)}, r"intensity_range\.visible is \[1, 1\]: give two ascending values"),
        ({"infrared": (0, float("nan"))}, "give two ascending values"),
        ({"infrared": (0, float("inf"))}, "give two ascending values"),
        ({"infrared_percentiles": (-1, 99)}, "two ascending percentiles of 0 to 100"),
        ({"infrared_percentiles": (99, 1)}, "two ascending percentiles of 0 to 100"),
        ({"visible_percentiles": (0, 101)}, "two ascending percentiles of 0 to 100"),
        ({"infrared": (0, 1), "infrared_percentiles": (1, 99)}, "are both set: give one"),
    ],
)
def test_ranges_that_cannot_be(settings, message):
    with pytest.raises(VIReIDError, match=message):
        IntensityRange(**settings).check()


def test_a_cache_belongs_to_its_limits(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), COUNTS.astype(np.uint16))
    by_limits = {}
    for limits in (LIMITS, (0.0, 65535.0)):
        files = ImageFiles(tmp_path, ["a.png"], (90, 40), modalities=[1], limits=(None, limits))
        by_limits[limits] = ImageCache(tmp_path / "cache", files).build(threads=1)
    assert (by_limits[LIMITS][0][..., 0] == SCALED).all()
    assert len(np.unique(by_limits[0.0, 65535.0][0])) <= 5


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2_000_000_000)  # sparse: it takes no space
    with pytest.raises(BadImageError, match=r"a\.png has 2\.0 GB, more than the 1\.2 that an image can have"):
        read_image(tmp_path / "a.png")
