"""A model hub on this machine: enough of the Hugging Face API for its real client.

A stand-in for the public hub, which tests must not need. It answers model info, `resolve` with a
redirect to a CDN on an origin of its own (large files), ranges, tokens, gated and private
repositories, revisions, and faults on demand; it counts requests and content bytes.

    python -m tests.world.hub --root DIR --port N     # DIR/<organisation>/<repository>/<files>
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

SIGNATURE = "signed-for-a-while"
_CHUNK = 1 << 20
_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A repository at one commit.

    Attributes:
        files: Path -> content, or the file that holds it.
        licence: What its card says.
        gated: Whether files need a token of an account in `readers`.
        private: Whether everything does.
        readers: Tokens that may read it when it is gated or private.
    """

    files: dict[str, bytes | Path]
    licence: str | None = None
    gated: bool = False
    private: bool = False
    readers: frozenset[str] = frozenset()

    @property
    def commit(self) -> str:
        """A commit that follows from the content."""
        listing = [f"{path} {_sha256(content)}" for path, content in sorted(self.files.items())]
        return hashlib.sha1("\n".join(listing).encode(), usedforsecurity=False).hexdigest()


@dataclass
class Fault:
    """What goes wrong with requests whose path matches.

    Attributes:
        pattern: Searched in the path; a CDN path is `/<sha256>/<file>`.
        status: Answer with this status instead.
        headers: And these headers.
        body: Send this content instead of the file's, under the same ETag.
        cut: Break the connection after so many bytes of the content.
        until: With `cut`: wait there for this event, then go on, instead of breaking.
        drip_s: With `cut`: go on from there with one byte after each such pause.
        reset: With `cut`: break with a reset, not with an orderly end.
        whole: Send the whole file, whatever range was asked for.
        replace: Headers of a file's answer to change; None leaves one out.
        flip: Send this byte of the file wrong.
        gzip: Compress the content.
        times: How many requests it meets, None for all of them.
        skip: How many matching requests it spares first.
    """

    pattern: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    until: threading.Event | None = None
    drip_s: float | None = None
    reset: bool = False
    whole: bool = False
    replace: dict[str, str | None] = field(default_factory=dict)
    flip: int | None = None
    gzip: bool = False
    times: int | None = None
    skip: int = 0


class LocalHub:
    """The running hub; use it as a context manager.

    Attributes:
        repos: Repositories by full name; change them at any time.
        tokens: Tokens that are accepted at all.
        forbidden: Tokens that are accepted and may read nothing (a missing scope).
        faults: What is to go wrong.
        requests: Requests by "METHOD path", those to the CDN as "CDN METHOD path".
        sent: Bytes of file content by file name.
        leaked: Authorization headers that reached the CDN.
        ranges: The ranges that were asked for, in order.
        rate: Bytes a second that each connection gets, None for all it can take.
        watch: Hears the file's name and all bytes of it sent so far, after each block.
    """

    def __init__(self, repos: dict[str, Repo], *, port: int = 0, rate: float | None = None) -> None:
        self.repos = repos
        self.rate = rate
        self.watch: Callable[[str, int], None] | None = None
        self.ranges: list[str] = []
        self.tokens: set[str] = set()
        self.forbidden: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.leaked: list[str] = []
        self.lock = threading.Lock()
        self._cdn_scheme = "http"
        self._api = _server(self, _Api, port)
        self._cdn = _server(self, _Cdn, 0)
        self._threads = [
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
            )
            for server in (self._api, self._cdn)
        ]

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._api.server_port}"

    @property
    def cdn(self) -> str:
        """Where large files are redirected to; another origin, as with the public hub."""
        # Another host name: one client (huggingface_hub 1.x) tells origins apart by that alone.
        return f"{self._cdn_scheme}://localhost:{self._cdn.server_port}"

    def cdn_tls(self, context: ssl.SSLContext) -> None:
        """From now on the CDN speaks TLS with the certificate of this context."""
        self._cdn_scheme = "https"
        # Shaking hands is left to the thread of each connection; a refused one must not stop all.
        self._cdn.socket = context.wrap_socket(
            self._cdn.socket, server_side=True, do_handshake_on_connect=False
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for server, thread in zip((self._api, self._cdn), self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def blob(self, sha256: str) -> bytes | Path | None:
        """The content with that hash."""
        contents = (content for repo in self.repos.values() for content in repo.files.values())
        return next((content for content in contents if _sha256(content) == sha256), None)

    def fault(self, path: str) -> Fault | None:
        """The fault that meets this request, counted down."""
        with self.lock:
            for fault in self.faults:
                if re.search(fault.pattern, path) and fault.times != 0:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def forget(self) -> None:
        """Reset the counters."""
        with self.lock:
            self.requests.clear()
            self.sent.clear()
            self.ranges.clear()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[LocalHub]
    protocol_version = "HTTP/1.1"
    counted_as = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests[f"{self.counted_as}{self.command} {path}"] += 1
        fault = self.hub.fault(path)
        if fault and fault.status:
            body = b'{"error": "on demand"}' if fault.body is None else fault.body
            self.send(fault.status, body, fault.headers)
        else:
            self.serve(path, fault)

    def serve(self, path: str, fault: Fault | None) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, message: str, code: str | None = None) -> None:
        """An error as the hub writes it."""
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def send_content(
        self, name: str, content: bytes | Path, headers: dict[str, str], fault: Fault | None
    ) -> None:
        """A file, or the range of it that was asked for."""
        fault = fault or Fault("")
        body = content if fault.body is None else fault.body
        if fault.flip is not None:
            whole = bytearray(body if isinstance(body, bytes) else body.read_bytes())
            whole[fault.flip] ^= 1
            body = bytes(whole)
        if fault.gzip:
            body = gzip.compress(body if isinstance(body, bytes) else body.read_bytes())
            headers = {**headers, "Content-Encoding": "gzip"}
        headers = {**headers, **{k: v for k, v in fault.replace.items() if v is not None}}
        size = _size(body)
        start, end, status = 0, size, 200
        if asked := self._range(headers, fault):
            start = int(asked[1])
            end = min(int(asked[2]) + 1, size) if asked[2] else size
            if start >= size:
                self.send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{size}", **headers}
        self.send_response(status)
        for key, value in {
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - start),
            **headers,
        }.items():
            if fault.replace.get(key, "") is not None:
                self.send_header(key, value)
        if fault.replace.get("Content-Length", "") != "":
            self.close_connection = True  # the client cannot know where the next answer begins
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = end if fault.cut is None else min(end, start + fault.cut)
        self._send_blocks(name, body, start, stop)
        if fault.until:
            fault.until.wait()
            self._send_blocks(name, body, stop, end)
        elif fault.drip_s is not None:
            while stop < end and not self.close_connection:
                time.sleep(fault.drip_s)
                self._send_blocks(name, body, stop, stop + 1)
                stop += 1
        elif stop < end:
            self._break_off(reset=fault.reset)

    def _range(self, headers: dict[str, str], fault: Fault) -> re.Match[str] | None:
        """The range to send; none when all of the file is to be sent (RFC 9110, 13.1.5)."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            with self.hub.lock:
                self.hub.ranges.append(asked[0])
        if fault.whole or self.headers.get("If-Range", headers.get("ETag")) != headers.get("ETag"):
            return None
        return asked

    def _break_off(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_blocks(self, name: str, body: bytes | Path, start: int, stop: int) -> None:
        began, at = time.monotonic(), start
        if self.hub.watch:
            # So that what counts as sent has left this machine's half of the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK // 16)
        with _Sender(self.connection, body) as sender:
            # Small blocks where somebody counts, so that the count is close to what has arrived.
            most = _CHUNK if self.hub.watch is None and self.hub.rate is None else _CHUNK // 16
            while at < stop:
                try:
                    sent = sender.send(at, min(most, stop - at))
                except OSError:  # the client went away
                    self.close_connection = True
                    return
                at += sent
                with self.hub.lock:
                    self.hub.sent[name] += sent
                    total = self.hub.sent[name]
                if self.hub.watch:
                    self.hub.watch(name, total)
                if self.hub.rate:
                    ahead = (at - start) / self.hub.rate - (time.monotonic() - began)
                    if ahead > 0:
                        time.sleep(ahead)


class _Sender:
    """Sends parts of a content; of a file without copying it through this process."""

    def __init__(self, connection: socket.socket, body: bytes | Path) -> None:
        self._connection = connection
        self._view = memoryview(body) if isinstance(body, bytes) else None
        self._file = None if isinstance(body, bytes) else body.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file:
            self._file.close()

    def send(self, start: int, count: int) -> int:
        """Send up to `count` bytes from `start`; how many were taken."""
        if self._view is not None:
            return self._connection.send(self._view[start : start + count])
        if self._file is None:
            raise AssertionError
        return os.sendfile(self._connection.fileno(), self._file.fileno(), start, count)


class _Api(_Handler):
    def serve(self, path: str, fault: Fault | None) -> None:
        if info := _INFO.fullmatch(path):
            if repo := self._allowed(info[1]):
                self._info(info[1], repo, info[2])
        elif resolve := _RESOLVE.fullmatch(path):
            if repo := self._allowed(resolve[1]):
                self._resolve(repo, resolve[2], resolve[3], fault)
        else:
            self.refuse(404, "Sorry, we can't find the page you are looking for.")

    def _token(self) -> str | None:
        header = self.headers.get("Authorization", "")
        return header.removeprefix("Bearer ") or None

    def _allowed(self, name: str) -> Repo | None:
        """The repository if this token may see it; otherwise the refusal is sent."""
        token = self._token()
        repo = self.hub.repos.get(name)
        if token is not None and token not in self.hub.tokens:
            self.refuse(401, "Invalid credentials in Authorization header")
        elif token in self.hub.forbidden:
            self.refuse(403, "Forbidden: the token lacks the scope repo.content.read")
        elif repo is None or (repo.private and token not in repo.readers):
            # To a stranger the hub does not tell what is missing from what is private.
            if token is None:
                self.refuse(401, "Invalid username or password.")
            else:
                self.refuse(404, "Repository not found", "RepoNotFound")
        else:
            return repo
        return None

    def _info(self, name: str, repo: Repo, revision: str | None) -> None:
        if revision not in {None, "main", repo.commit}:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return
        blobs = parse_qs(urlsplit(self.path).query).get("blobs", [""])[0].lower() == "true"
        siblings = [
            {"rfilename": path} | (_blob_info(path, content) if blobs else {})
            for path, content in sorted(repo.files.items())
        ]
        card = {"license": repo.licence} if repo.licence else {}
        document = {
            "id": name,
            "sha": repo.commit,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "cardData": card,
            "tags": [],
            "siblings": siblings,
        }
        self.send(200, json.dumps(document).encode(), {})

    def _resolve(self, repo: Repo, revision: str, path: str, fault: Fault | None) -> None:
        token = self._token()
        if repo.gated and token not in repo.readers:
            self.refuse(401 if token is None else 403, "Access is restricted.", "GatedRepo")
            return
        if revision not in {"main", repo.commit}:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return
        content = repo.files.get(path)
        if content is None:
            self.refuse(404, "Entry not found", "EntryNotFound")
            return
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{_git_id(content)}"'}
        if not _is_large(path):
            self.send_content(path, content, headers, fault)
            return
        sha256 = _sha256(content)
        headers |= {
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(_size(content)),
            "Location": f"{self.hub.cdn}/{sha256}/{path}?X-Signature={SIGNATURE}",
        }
        self.send(302, b"", headers)


class _Cdn(_Handler):
    counted_as = "CDN "

    def serve(self, path: str, fault: Fault | None) -> None:
        if token := self.headers.get("Authorization"):
            self.hub.leaked.append(token)
        sha256, _, name = path.lstrip("/").partition("/")
        content = self.hub.blob(sha256)
        if content is None or SIGNATURE not in self.path:
            self.send(403, b"<Error>AccessDenied</Error>", {"Content-Type": "application/xml"})
            return
        kind = {"Content-Type": "application/octet-stream", "ETag": f'"{sha256}"'}
        self.send_content(name, content, kind, fault)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that were killed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _server(hub: LocalHub, handler: type[_Handler], port: int) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", port), type(handler.__name__, (handler,), {"hub": hub}))
    # A client keeps connections open; stopping must not wait for it.
    server.daemon_threads = True
    server.block_on_close = False
    return server


def _is_large(path: str) -> bool:
    """Whether the hub would keep it with Git LFS."""
    return path.lower().endswith((".gguf", ".safetensors", ".bin"))


def _blob_info(path: str, content: bytes | Path) -> dict[str, Any]:
    size = _size(content)
    info: dict[str, Any] = {"size": size, "blobId": _git_id(content)}
    if _is_large(path):
        info["lfs"] = {"sha256": _sha256(content), "size": size, "pointerSize": 134}
    return info


_hashes: dict[tuple[str, int, int], str] = {}


@lru_cache(maxsize=64)
def _sha256_of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return _sha256_of_bytes(content)
    stat = content.stat()
    key = (str(content), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with content.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def _git_id(content: bytes | Path) -> str:
    return hashlib.sha1(_sha256(content).encode(), usedforsecurity=False).hexdigest()


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def repos_below(root: Path) -> dict[str, Repo]:
    """Repositories from files on disk: ROOT/<organisation>/<repository>/<files>."""
    repos = {}
    for directory in sorted(path for path in root.glob("*/*") if path.is_dir()):
        files: dict[str, bytes | Path] = {
            path.relative_to(directory).as_posix(): path
            for path in directory.rglob("*")
            if path.is_file()
        }
        repos[directory.relative_to(root).as_posix()] = Repo(files)
    return repos


def main() -> None:
    """Serve a directory until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes a second that each connection gets")
    arguments = parser.parse_args()
    repos = repos_below(arguments.root)
    with LocalHub(repos, port=arguments.port, rate=arguments.rate) as hub:
        print(f"HF_ENDPOINT={hub.url}", flush=True)  # noqa: T201
        threading.Event().wait()


if __name__ == "__main__":
    main()
