"""Size and bit depth of an image file, read from its first bytes: what must be known before it is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

#: Width, height, and bits of one value.
_Fields = tuple[int, int, int]

#: How many bytes of a file hold its header, but for a JPEG with much before its image and a TIFF that ends with it.
HEADER_BYTES = 4096


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say.

    Attributes:
        format: The format's name.
        width: Width in pixels.
        height: Height in pixels.
        bits: Bits of one value of one channel; a palette's are those of the colours that it stands for.
    """

    format: str
    width: int
    height: int
    bits: int


def read_header(content: bytes) -> Header | None:
    """Return the header of an image file, None where these bytes are of no known format or hold too little of it."""
    for name, start, parse in _FORMATS:
        if re.match(start, content, re.DOTALL):
            try:
                width, height, bits = parse(content)
            except (struct.error, ValueError, IndexError, OverflowError):
                return None
            return Header(name, width, height, max(bits, 8))
    return None


def _parse_png(content: bytes) -> _Fields:
    width, height, bits = struct.unpack_from(">IIB", content, 16)
    return width, height, bits


def _parse_jpeg(content: bytes) -> _Fields:
    position = 2
    while True:
        while content[position + 1] == 0xFF:  # any number of these may stand before a marker
            position += 1
        mark, marker, length = struct.unpack_from(">BBH", content, position)
        if mark != 0xFF:
            raise ValueError("no marker")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame
            bits, height, width = struct.unpack_from(">BHH", content, position + 4)
            return width, height, bits
        position += 2 + length


def _parse_tiff(content: bytes) -> _Fields:
    order = "<" if content.startswith(b"II") else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    count_format, entry, inline = (order + "Q", 20, 8) if big else (order + "H", 12, 4)
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    (count,) = struct.unpack_from(count_format, content, directory)
    first = directory + struct.calcsize(count_format)
    values = {258: 1}  # a file that does not say has one bit
    for number in range(min(count, 4096)):
        position = first + number * entry
        tag, kind = struct.unpack_from(order + "HH", content, position)
        if tag in (256, 257, 258) and kind in (3, 4):
            (length,) = struct.unpack_from(order + ("Q" if big else "I"), content, position + 4)
            place, size = position + entry - inline, 2 if kind == 3 else 4
            if length * size > inline:  # several values, which lie elsewhere; all channels have the same depth
                (place,) = struct.unpack_from(order + ("Q" if big else "I"), content, place)
            (values[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, place)
    if not {256, 257} <= values.keys():
        raise ValueError("no size")
    return values[256], values[257], values[258]


def _parse_bmp(content: bytes) -> _Fields:
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return abs(width), abs(height), 8


def _parse_webp(content: bytes) -> _Fields:
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF, 8
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 8
    if kind == b"VP8X":
        low, middle, high = struct.unpack_from("<HHH", content, 24)
        return (low | (middle & 0xFF) << 16) + 1, (middle >> 8 | high << 8) + 1, 8
    raise ValueError("no WebP")


def _parse_gif(content: bytes) -> _Fields:
    width, height = struct.unpack_from("<HH", content, 6)
    return width, height, 8


def _parse_jpeg_2000(content: bytes) -> _Fields:
    if content.startswith(b"\xff"):  # the bare codestream
        right, bottom, left, top = struct.unpack_from(">IIII", content, 8)
        return right - left, bottom - top, (content[42] & 0x7F) + 1
    height, width, _, bits = struct.unpack_from(">IIHB", content, content.index(b"ihdr") + 4)
    return width, height, (bits & 0x7F) + 1


def _parse_avif(content: bytes) -> _Fields:
    # A large image is a grid of tiles, each with a size of its own beside the whole's.
    sizes = [struct.unpack_from(">II", content, match.end() + 4) for match in re.finditer(b"ispe", content)]
    return max(width for width, _ in sizes), max(height for _, height in sizes), 8


def _parse_pnm(content: bytes) -> _Fields:
    text = re.sub(rb"#[^\n]*", b"", content[:HEADER_BYTES])
    kind, width, height, *rest = text.split(None, 4)
    if kind in (b"P1", b"P4"):
        return int(width), int(height), 1
    if kind in (b"PF", b"Pf"):
        return int(width), int(height), 32
    return int(width), int(height), int(rest[0]).bit_length()


def _parse_hdr(content: bytes) -> _Fields:
    match = re.search(rb"\n[-+]Y (\d+) [-+]X (\d+)\n", content)
    if match is None:
        raise ValueError("no size")
    return int(match[2]), int(match[1]), 32


#: Each format's name, how its files begin, and what reads its header.
_FORMATS: tuple[tuple[str, bytes, Callable[[bytes], _Fields]], ...] = (
    ("JPEG", rb"\xff\xd8\xff", _parse_jpeg),
    ("PNG", rb"\x89PNG\r\n\x1a\n", _parse_png),
    ("TIFF", rb"II[*+]\0|MM\0[*+]", _parse_tiff),
    ("BMP", rb"BM", _parse_bmp),
    ("WebP", rb"RIFF....WEBP", _parse_webp),
    ("GIF", rb"GIF8[79]a", _parse_gif),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _parse_jpeg_2000),
    ("AVIF", rb"....ftypavi", _parse_avif),
    ("PNM", rb"P[1-6Ff]\s", _parse_pnm),
    ("HDR", rb"#\?(RADIANCE|RGBE)", _parse_hdr),
)

#: The formats' names.
FORMATS = tuple(name for name, _, _ in _FORMATS)
