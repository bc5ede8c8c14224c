"""A picture as text: half blocks in 24-bit colours, or plain characters where colour is not wanted.

Only PNG with 8 bits a channel is decoded, by the standard library alone; a preview is a courtesy
and not worth a dependency. Alpha is dropped, not blended, as llama.cpp does.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Rgb = tuple[int, int, int]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
# Unfiltering in Python takes about a second for this many.
MOST_PIXELS = 1_000_000
_RAMP = " .:-=+*#%@"  # from light to dark
_SAMPLES = 3  # in each direction, averaged for one cell


@dataclass(frozen=True)
class Pixels:
    """Decoded rows, each of 3 x width bytes (RGB)."""

    width: int
    height: int
    rows: tuple[bytes, ...]


def preview(data: bytes, columns: int, *, colours: bool) -> str | None:
    """Lines of text that show a picture.

    Args:
        data: The picture.
        columns: Widest line.
        colours: Use ANSI colours; else darkness is shown by characters.

    Returns:
        The lines, None for anything but a PNG of the simple kinds.
    """
    pixels = decode_png(data)
    if pixels is None:
        return None
    cells = _scaled(pixels, max(1, min(columns, pixels.width)))
    return "\n".join(_half_blocks(cells) if colours else _characters(cells))


def decode_png(data: bytes) -> Pixels | None:
    """The pixels of a PNG; None when it is damaged, interlaced, large, or not 8 bits a channel."""
    try:
        chunks = list(_chunks(data))
        if not chunks or chunks[0][0] != b"IHDR":
            return None
        width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
        if depth != 8 or kind not in _CHANNELS or interlaced:  # noqa: PLR2004
            return None
        if not 0 < width * height <= MOST_PIXELS:
            return None
        channels = _CHANNELS[kind]
        size = height * (1 + width * channels)
        packed = b"".join(body for name, body in chunks if name == b"IDAT")
        # Bounded: a few bytes can unpack to gigabytes.
        raw = zlib.decompressobj().decompress(packed, size)
    except (struct.error, zlib.error):
        return None
    palette = next((body for name, body in chunks if name == b"PLTE"), b"")
    if len(raw) != size or (kind == _PALETTE and not palette):
        return None
    rows = _unfiltered(raw, width * channels, channels)
    return Pixels(width, height, tuple(_rgb(row, kind, palette) for row in rows))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk; checksums are left to whoever uses the picture."""
    at = len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _unfiltered(raw: bytes, stride: int, step: int) -> Iterator[bytes]:
    """Rows of samples; the five filters are those of the PNG specification, section 9."""
    above = bytearray(stride)
    for at in range(0, len(raw), stride + 1):
        row = bytearray(raw[at + 1 : at + 1 + stride])
        match raw[at]:
            case 1:
                for i in range(step, stride):
                    row[i] = (row[i] + row[i - step]) & 255
            case 2:
                row = bytearray((x + up) & 255 for x, up in zip(row, above, strict=True))
            case 3:
                for i in range(stride):
                    left = row[i - step] if i >= step else 0
                    row[i] = (row[i] + (left + above[i]) // 2) & 255
            case 4:
                for i in range(stride):
                    left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
                    row[i] = (row[i] + _paeth(left, above[i], corner)) & 255
        yield bytes(row)
        above = row


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


def _rgb(row: bytes, kind: int, palette: bytes) -> bytes:
    if kind == _PALETTE:
        # An index beyond the palette is an error of the file; black is what decoders show.
        padded = palette.ljust(3 * 256, b"\0")
        return b"".join(padded[3 * i : 3 * i + 3] for i in row)
    step = _CHANNELS[kind]
    if kind in (_GREY, _GREY_ALPHA):
        return b"".join(bytes((grey,)) * 3 for grey in row[::step])
    if kind == _COLOUR:
        return row
    return b"".join(row[i : i + 3] for i in range(0, len(row), step))


def _scaled(pixels: Pixels, columns: int) -> list[list[Rgb]]:
    """Cells of square size in rows, an even number of them: two make one character."""
    lines = max(1, round(pixels.height * columns / pixels.width / 2))
    return [
        [_average(pixels, x, y, columns, 2 * lines) for x in range(columns)]
        for y in range(2 * lines)
    ]


def _average(pixels: Pixels, x: int, y: int, columns: int, rows: int) -> Rgb:
    sums = [0, 0, 0]
    for j in range(_SAMPLES):
        row = pixels.rows[int((y + (j + 0.5) / _SAMPLES) * pixels.height / rows)]
        for i in range(_SAMPLES):
            at = 3 * int((x + (i + 0.5) / _SAMPLES) * pixels.width / columns)
            for channel in range(3):
                sums[channel] += row[at + channel]
    red, green, blue = (total // _SAMPLES**2 for total in sums)
    return red, green, blue


def _half_blocks(cells: list[list[Rgb]]) -> Iterator[str]:
    """The upper half is a character's colour, the lower one its ground; said where they change."""
    for upper, lower in zip(cells[::2], cells[1::2], strict=True):
        line, before = "", None
        for pair in zip(upper, lower, strict=True):
            if pair != before:
                ink, ground = (";".join(map(str, colour)) for colour in pair)
                line += f"\x1b[38;2;{ink};48;2;{ground}m"
            line, before = f"{line}\N{UPPER HALF BLOCK}", pair
        yield f"{line}\x1b[0m"


def _characters(cells: list[list[Rgb]]) -> Iterator[str]:
    for upper, lower in zip(cells[::2], cells[1::2], strict=True):
        pairs = zip(upper, lower, strict=True)
        light = [(_luminance(one) + _luminance(other)) / 2 for one, other in pairs]
        yield "".join(_RAMP[round((1 - y) * (len(_RAMP) - 1))] for y in light).rstrip()


def _luminance(colour: Rgb) -> float:
    """0 for black, 1 for white (weights of ITU-R BT.601)."""
    red, green, blue = colour
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255
