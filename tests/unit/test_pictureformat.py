"""Formats by their first bytes: what llama.cpp reads, and what has to be converted."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from llmctl.core.pictureformat import picture_format
from llmctl.errors import UsageError


def written(kind: str) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8), (200, 0, 0)).save(file, kind)
        return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_readable(kind: str) -> None:
    found = picture_format(written(kind), "a")
    assert (found.name, found.media_type) == (kind.lower(), f"image/{kind.lower()}")


@pytest.mark.parametrize(
    ("data", "name", "hint"),
    [
        (written("WEBP"), "WebP", "convert 'my cat.x' 'my cat.png'"),
        (written("TIFF"), "TIFF", "convert"),
        (written("PDF"), "PDF", "pdftoppm -png -singlefile 'my cat.x' 'my cat'"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "convert"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC", "convert"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "AVIF", "convert"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", "AVIF", "convert"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL", "convert"),
        (b"<svg xmlns='...'>", "SVG", "rsvg-convert -o 'my cat.png' 'my cat.x'"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg>', "SVG", "rsvg-convert"),
    ],
)
def test_refused_by_name_with_the_command_that_converts(data: bytes, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"is {name}, which llama.cpp does not read") as caught:
        picture_format(data, "my cat.x")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("source", ["-", "https://example.com/a.webp?x=1", "data:image/webp"])
def test_what_is_no_file_gets_a_name_in_the_command(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        picture_format(written("WEBP"), source)
    assert (caught.value.hint or "").startswith("convert picture.webp picture.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_half_a_picture(kind: str) -> None:
    whole = written(kind)
    picture_format(whole + b"and what a camera adds", "a")
    with pytest.raises(UsageError, match="ends in the middle"):
        picture_format(whole[:-20], "a")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is an empty file, no picture"),
        (b"<!DOCTYPE html><p>", "is an HTML page"),
        (b"hello", "a: is no picture"),
        (b"BMW is not a picture", "a: is no picture"),
        (b"GGUF", "a: is no picture"),
    ],
)
def test_no_picture(data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        picture_format(data, "a")
