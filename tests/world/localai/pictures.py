"""Pictures of a request (core/http/middleware/request.go, pkg/utils/base64.go, urlfetch.go).

Whatever goes wrong with one, LocalAI logs it, leaves it out and answers as if it had not been sent.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tests.world.localai.errors import log_error

_DATA_URI = re.compile(r"data:[^,]*;base64,")
_METADATA_HOSTS = {"metadata", "metadata.google.internal", "instance-data"}
# What llama.cpp's decoder (stb_image) reads; it has no WebP.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_TIMEOUT_S = 30


class PictureError(ValueError):
    """Why a picture is left out."""


def split_content(content: Any, trusted: frozenset[str]) -> tuple[str, list[bytes]]:
    """The text and the usable pictures of one message's ``content`` (a string or a list of parts)."""
    if isinstance(content, str):
        return content, []
    text, pictures = "", []
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "text":
            text += part.get("text", "")
        elif part.get("type") in {"image_url", "image"}:
            source = part.get("image_url", "")
            source = source.get("url", "") if isinstance(source, dict) else source
            try:
                pictures.append(_fetch(source, trusted))
            except PictureError as error:
                log_error("Failed encoding image error=%s", error)
    return text, pictures


def _fetch(source: str, trusted: frozenset[str]) -> bytes:
    if source.startswith("http"):
        data = _download(source, trusted)
    elif match := _DATA_URI.match(source):
        try:
            data = base64.b64decode(source[match.end() :], validate=True)
        except binascii.Error as error:
            raise PictureError(f"illegal base64 data: {error}") from error
    else:
        raise PictureError("not valid base64 data type string")
    if not data.startswith(_MAGIC):
        raise PictureError("Failed to load image or audio file")
    return data


def _download(url: str, trusted: frozenset[str]) -> bytes:
    """The body, whatever the status says: an error page is passed on as if it were the picture."""
    parts = urllib.parse.urlsplit(url)
    # Every address that a test can serve a picture from is private, and the guard refuses those. So
    # that the way through a URL can be tested at all, the addresses named in
    # STANDIN_TRUSTED_PICTURE_URLS are let through.
    if parts.netloc not in trusted:
        _refuse_private(parts)
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()
    except OSError as error:
        raise PictureError(str(error)) from error


def _refuse_private(parts: urllib.parse.SplitResult) -> None:
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"}:
        raise PictureError(f"unsupported URL scheme: {parts.scheme}")
    if host == "localhost" or host.endswith(".local") or host in _METADATA_HOSTS:
        raise PictureError(f"URL host {host} is not allowed")
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except socket.gaierror as error:
        raise PictureError(f"cannot resolve {host}: {error}") from error
    for text in addresses:
        address = ipaddress.ip_address(text)
        if address.is_private or address.is_loopback or address.is_link_local:
            raise PictureError(f"URL resolves to a private or loopback address: {address}")
