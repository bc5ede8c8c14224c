"""What kind of picture some bytes are, and whether llama.cpp can read it.

llama.cpp decodes with stb_image and knows neither WebP nor what cameras and browsers moved to
since; it answers HTTP 400 or 500 to those, and LocalAI may go on without the picture. So they are
refused here, with the command that converts them.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from llmctl.core.filetype import identify
from llmctl.errors import UsageError

HEAD = 512


@dataclass(frozen=True)
class Format:
    """A picture format that llama.cpp reads.

    Attributes:
        name: "png", "jpeg", "gif" or "bmp".
        media_type: As in a `data:` URI.
    """

    name: str
    media_type: str


_READABLE: tuple[tuple[bytes, Format], ...] = (
    (rb"\x89PNG\r\n\x1a\n", Format("png", "image/png")),
    (rb"\xff\xd8\xff", Format("jpeg", "image/jpeg")),
    (rb"GIF8[79]a", Format("gif", "image/gif")),
    # Size, then four reserved bytes; the two letters alone would be the start of many a text.
    (rb"BM.{4}\0\0\0\0", Format("bmp", "image/bmp")),
)
_CONVERT = "convert {file} {png}   # ImageMagick"
# Name, usual suffix, beginning, and the command that makes a PNG of it.
_FOREIGN: tuple[tuple[str, str, bytes, str], ...] = (
    ("WebP", "webp", rb"RIFF.{4}WEBP", _CONVERT),
    ("AVIF", "avif", rb".{4}ftyp.{0,40}avi[fs]", _CONVERT),
    ("HEIC", "heic", rb".{4}ftyp.{0,40}(?:hei[cxms]|hev[cx]|mif1|msf1)", _CONVERT),
    ("JPEG XL", "jxl", rb"\xff\x0a|\0\0\0\x0cJXL ", _CONVERT),
    ("TIFF", "tiff", rb"II\*\0|MM\0\*", _CONVERT),
    ("PDF", "pdf", rb"%PDF", "pdftoppm -png -singlefile {file} {stem}   # poppler-utils"),
    (
        "SVG",
        "svg",
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?|<!--.*?)?<svg",
        "rsvg-convert -o {png} {file}   # librsvg2-bin",
    ),
)


def picture_format(data: bytes, source: str) -> Format:
    """The format of a picture that llama.cpp reads.

    Args:
        data: The picture, whole.
        source: The file, address or - that it came from, for the message.

    Raises:
        UsageError: no picture, one that is cut off, or one that llama.cpp does not read; then the
            hint converts it.
    """
    head = data[:HEAD]
    for pattern, readable in _READABLE:
        if re.match(pattern, head, re.DOTALL):
            if not _is_whole(data, readable):
                # LocalAI would drop it and let the model answer without it.
                raise UsageError(
                    f"{source}: ends in the middle of the picture ({len(data)} bytes)",
                    hint="download or copy it again",
                )
            return readable
    for name, suffix, pattern, command in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            raise UsageError(
                f"{source}: is {name}, which llama.cpp does not read (PNG, JPEG, GIF and BMP it"
                " does)",
                hint=_spelled(command, source, suffix),
            )
    what = identify(head)
    known = what is not None and what != "not a GGUF file"
    raise UsageError(
        f"{source}: is {what}, no picture" if known else f"{source}: is no picture",
        hint="PNG, JPEG, GIF and BMP are taken",
    )


def _is_whole(data: bytes, kind: Format) -> bool:
    """Whether the end of a picture is there, where the format marks it."""
    match kind.name:
        case "png":
            return b"IEND" in data[8:]
        case "jpeg":
            return b"\xff\xd9" in data
        case "bmp":
            return len(data) >= int.from_bytes(data[2:6], "little")
    return True


def _spelled(command: str, source: str, suffix: str) -> str:
    """The command with the file's name; a download or a pipe has to become a file first."""
    local = source != "-" and not re.match(r"https?://|data:", source, re.IGNORECASE)
    file = source if local else f"picture.{suffix}"
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}\Z", "", file)
    quoted = {"file": file, "stem": stem, "png": f"{stem}.png"}
    return command.format(**{name: shlex.quote(text) for name, text in quoted.items()})
