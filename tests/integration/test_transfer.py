"""Bringing a file here against a hub that misbehaves: the right file, or an error that says why."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from llmctl.core.artifact import RepoFile
from llmctl.errors import DiskFullError, HubError, LlmctlError
from llmctl.hub import base
from llmctl.hub.huggingface import HuggingFaceHub
from llmctl.hub.journal import BLOCK, journal_of
from llmctl.hub.pace import Patience
from tests.world.hub import SIGNATURE, Fault, LocalHub, Repo

TOKEN = "hf_secretSECRETsecret"
REPO = "org/vision-GGUF"
MODEL = b"GGUF" + random.Random(5).randbytes(5_000_000)
FILE = RepoFile("model.gguf", len(MODEL), hashlib.sha256(MODEL).hexdigest())
CDN = "^/[0-9a-f]{64}/"
QUICK = Patience(tries=4, first_s=0.01, most_s=0.02, stall_s=10, window_s=0.05)
# Where a stall is what is tested; elsewhere a busy machine must not look like one.
IMPATIENT = dataclasses.replace(QUICK, stall_s=0.3, slowest=10_000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    from huggingface_hub import close_session, constants

    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home/token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    with LocalHub({REPO: Repo({"model.gguf": MODEL, "README.md": b"# a card"})}) as hub:
        hub.tokens = {TOKEN}
        yield hub
        close_session()


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    return tmp_path / "partial/model.gguf"


def client(hub: LocalHub, patience: Patience = QUICK) -> HuggingFaceHub:
    return HuggingFaceHub(hub.url, TOKEN, patience)


def pull(
    hub: LocalHub, aside: Path, file: RepoFile = FILE, patience: Patience = QUICK
) -> list[tuple[int, int | None]]:
    """Download; the file must be right, and nothing may lie beside it."""
    heard: list[tuple[int, int | None]] = []
    sha256 = client(hub, patience).download(
        REPO, hub.repos[REPO].commit, file, aside, lambda *said: heard.append(said)
    )
    content = hub.repos[REPO].files[file.path]
    assert isinstance(content, bytes)
    assert aside.read_bytes() == content
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert [path.name for path in aside.parent.iterdir()] == [aside.name]
    assert heard == [] or heard[-1] == (len(content), len(content))
    return heard


def refused(
    hub: LocalHub, aside: Path, file: RepoFile = FILE, patience: Patience = QUICK
) -> LlmctlError:
    """Download; it must be refused, with nothing secret in what is said."""
    with pytest.raises(LlmctlError) as caught:
        client(hub, patience).download(REPO, hub.repos[REPO].commit, file, aside, lambda *_: None)
    shown = f"{caught.value.message} {caught.value.hint} {caught.value.details}"
    assert TOKEN not in shown
    assert SIGNATURE not in shown
    assert caught.value.hint
    return caught.value


def cdn_requests(hub: LocalHub) -> int:
    return sum(n for request, n in hub.requests.items() if request.startswith("CDN GET"))


HALF_DATE = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)

PASSING = {
    "the connection ends early": Fault(CDN, cut=1_500_000, times=1),
    "it ends early three times": Fault(CDN, cut=600_000, times=3),
    "it is reset": Fault(CDN, cut=1_500_000, reset=True, times=1),
    "nothing more comes": Fault(CDN, cut=1_500_000, drip_s=60, times=1),
    "it drips": Fault(CDN, cut=1_500_000, drip_s=0.02, times=1),
    "the CDN fails, then recovers": Fault(CDN, status=503, times=3),
    "the hub fails, then recovers": Fault("/resolve/", status=500, times=3),
    "a short rate limit": Fault(CDN, status=429, headers={"Retry-After": "0"}, times=2),
    "a rate limit until a date": Fault(
        "/resolve/", status=429, headers={"Retry-After": HALF_DATE}, times=2
    ),
    "a rate limit without a word": Fault("/resolve/", status=429, times=2),
    "a timeout of the server's own": Fault(CDN, status=408, times=1),
    "the signature ran out": Fault(CDN, status=403, skip=1, times=1),
    "the wrong part, once": Fault(CDN, replace={"Content-Range": "bytes 7-9/10"}, times=1),
    "a wrong length, once": Fault(CDN, replace={"Content-Length": "77"}, times=1),
    "a part without a length": Fault(CDN, replace={"Content-Length": None}),
    "no ETag": Fault(CDN, replace={"ETag": None}),
    "a weak ETag": Fault(CDN, replace={"ETag": 'W/"x"'}),
    "no ranges at all": Fault(CDN, whole=True),
    "no ranges and no length": Fault(CDN, whole=True, replace={"Content-Length": None}),
    "no ranges, and it breaks off": Fault(CDN, whole=True, cut=900_000, times=2),
    "no ranges, for a while": Fault(CDN, whole=True, skip=1, times=1),
    "another ETag, once": Fault(CDN, replace={"ETag": '"new"'}, skip=1, times=1),
    "a wrong byte, once": Fault(CDN, flip=4_000_000, times=1),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_the_right_file_comes_in_spite_of_it(hub: LocalHub, aside: Path, fault: Fault) -> None:
    hub.faults.append(dataclasses.replace(fault))  # the hub counts it down
    pull(hub, aside, patience=QUICK if fault.drip_s is None else IMPATIENT)
    assert hub.leaked == []


LASTING = {
    "it always ends early": (
        Fault(CDN, cut=100_000),
        r"the connection to localhost failed \((ended early|ProtocolError)\)",
    ),
    "nothing ever comes": (Fault(CDN, cut=100_000, drip_s=60), "localhost: no answer in time"),
    "it always drips": (Fault(CDN, cut=100_000, drip_s=0.02), "localhost: no answer in time"),
    "the CDN keeps failing": (Fault(CDN, status=503), "localhost failed with HTTP 503"),
    "the hub keeps failing": (
        Fault("/resolve/", status=502),
        r"http://127.0.0.1:\d+ failed with HTTP 502",
    ),
    "the CDN refuses": (Fault(CDN, status=403), "localhost refuses to send it .HTTP 403."),
    "a rate limit without end": (
        Fault("/resolve/", status=429),
        "limits how often it may be asked$",
    ),
    "the wrong part": (
        Fault(CDN, replace={"Content-Range": "bytes 7-9/10"}),
        "localhost answers with another part of the file than was asked for",
    ),
    "a wrong length": (
        Fault(CDN, replace={"Content-Length": "77"}),
        "localhost contradicts itself about how much it sends",
    ),
    "compressed": (Fault(CDN, gzip=True), "localhost compresses the file"),
    "compressed and whole": (Fault(CDN, gzip=True, whole=True), "localhost compresses the file"),
    "a shorter file": (Fault(CDN, body=MODEL[:-9]), "has 4999995 bytes of it, 5000004 were"),
    "a longer file": (Fault(CDN, body=MODEL + b"9"), "has 5000005 bytes of it, 5000004 were"),
    "a shorter file in one piece": (
        Fault(CDN, body=MODEL[:-9], whole=True),
        "sends 4999995 bytes, 5000004 were announced",
    ),
    "a shorter file without a length": (
        Fault(CDN, body=MODEL[:-9], whole=True, replace={"Content-Length": None}),
        "ended early",
    ),
    "a longer file without a length": (
        Fault(CDN, body=MODEL + b"9", whole=True, replace={"Content-Length": None}),
        "sends more than the 5000004 bytes announced",
    ),
    "always a wrong byte": (
        Fault(CDN, flip=4_000_000),
        f"SHA-256 {FILE.sha256} was expected, [0-9a-f]{{64}} came; nothing was kept",
    ),
    "always a wrong byte, in one piece": (
        Fault(CDN, flip=4_000_000, whole=True),
        f"SHA-256 {FILE.sha256} was expected, [0-9a-f]{{64}} came; nothing was kept",
    ),
    "out of range": (
        Fault(CDN, status=416, headers={"Content-Range": "bytes */12"}),
        "has 12 bytes of it, 5000004 were announced",
    ),
    "out of any range": (Fault(CDN, status=416), "answers that the file ends before"),
    "a sign-in page at the CDN": (
        Fault(CDN, status=200, headers={"Content-Type": "text/html"}, body=b"<html>sign in</html>"),
        "localhost does not answer like a model hub",
    ),
    "a sign-in page at the hub": (
        Fault("/resolve/", status=200, headers={"Content-Type": "text/html; charset=utf-8"}),
        "127.0.0.1 does not answer like a model hub",
    ),
    "a redirect loop": (
        Fault(CDN, status=302, headers={"Location": "?X-Signature=" + SIGNATURE}),
        "127.0.0.1 redirects in a circle",
    ),
    "a redirect to nowhere": (
        Fault("/resolve/", status=302, headers={"Location": "file:///etc/passwd"}),
        "redirects to something that is not HTTP",
    ),
}


def test_one_answer_without_ranges_costs_only_itself(hub: LocalHub, aside: Path) -> None:
    """One stray host of a CDN must not throw away what the others sent."""
    one_connection = dataclasses.replace(QUICK, window_s=1e9)
    hub.faults.append(Fault(CDN, whole=True, skip=1, times=1))
    pull(hub, aside, patience=one_connection)
    assert "bytes=0-" not in "".join(hub.ranges[1:])


@pytest.mark.parametrize(("fault", "words"), LASTING.values(), ids=LASTING.keys())
def test_a_lasting_fault_is_told(hub: LocalHub, aside: Path, fault: Fault, words: str) -> None:
    hub.faults.append(fault)
    error = refused(hub, aside, patience=QUICK if fault.drip_s is None else IMPATIENT)
    assert isinstance(error, HubError)
    assert re.search(words, error.message), error.message
    assert cdn_requests(hub) < 40  # it never loops


def test_the_etag_changes_with_every_answer(hub: LocalHub, aside: Path) -> None:
    """Each range comes under another name: that is never one file."""
    hub.faults += [
        Fault(CDN, replace={"ETag": f'"{number}"'}, cut=600_000, times=1) for number in range(20)
    ]
    error = refused(hub, aside)
    assert "sends another content than a moment ago, twice in a row" in error.message
    assert not aside.exists()


@pytest.mark.parametrize("after", ["3600", "date"])
@pytest.mark.parametrize("where", [CDN, "/resolve/"])
def test_a_long_wait_is_told_at_once(hub: LocalHub, aside: Path, where: str, after: str) -> None:
    if after == "date":
        after = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    hub.faults.append(Fault(where, status=429, headers={"Retry-After": after}))
    error = refused(hub, aside)
    assert re.search(
        r"limits how often it may be asked, until \d\d:\d\d:\d\d \(in 3\d\d\d s\)$", error.message
    )
    assert sum(n for path, n in hub.requests.items() if re.search(where, path.split()[-1])) == 1


def test_what_came_before_a_failure_is_not_fetched_again(hub: LocalHub, aside: Path) -> None:
    hub.faults.append(Fault(CDN, cut=3_000_000, times=1))
    hub.faults.append(Fault(CDN, status=403))
    assert "HTTP 403" in refused(hub, aside).message
    done, total = base.partial_progress(aside) or (0, 0)
    assert (done // BLOCK, total) == (3_000_000 // BLOCK, len(MODEL))
    hub.faults.clear()
    hub.forget()
    heard = pull(hub, aside)
    assert heard[0] == (done, len(MODEL))
    assert hub.sent["model.gguf"] == len(MODEL) - done
    assert base.partial_progress(aside) is None


def test_an_interrupt_keeps_what_came(hub: LocalHub, aside: Path) -> None:
    release = threading.Event()
    hub.faults.append(Fault(CDN, cut=3_000_000, until=release, times=1))

    def interrupted(done: int, _: int | None) -> None:
        if done == 3_000_000:
            raise KeyboardInterrupt

    one_connection = client(hub, dataclasses.replace(QUICK, window_s=1e9))
    with pytest.raises(KeyboardInterrupt):
        one_connection.download(REPO, hub.repos[REPO].commit, FILE, aside, interrupted)
    done, _ = base.partial_progress(aside) or (0, 0)
    assert done == 3_000_000 // BLOCK * BLOCK
    hub.faults.clear()
    hub.ranges.clear()
    pull(hub, aside)
    assert hub.ranges[0].startswith(f"bytes={done}-")
    release.set()


def left_behind(hub: LocalHub, aside: Path) -> int:
    """An unfinished file; its bytes done."""
    hub.faults.append(Fault(CDN, cut=3_000_000, times=1))
    hub.faults.append(Fault(CDN, status=403))
    refused(hub, aside)
    hub.faults.clear()
    hub.forget()
    done, _ = base.partial_progress(aside) or (0, 0)
    assert done
    return done


def test_a_damaged_block_is_refetched_alone(hub: LocalHub, aside: Path) -> None:
    done = left_behind(hub, aside)
    with aside.open("r+b") as file:
        file.seek(2 * BLOCK + 77)
        file.write(b"damage")
    pull(hub, aside)
    assert hub.sent["model.gguf"] == len(MODEL) - done + BLOCK
    assert f"bytes={2 * BLOCK}-{3 * BLOCK - 1}" in hub.ranges


def test_a_file_cut_short_is_continued_from_what_is_left(hub: LocalHub, aside: Path) -> None:
    left_behind(hub, aside)
    os.truncate(aside, 3 * BLOCK + 5)
    pull(hub, aside)
    assert hub.sent["model.gguf"] == len(MODEL) - 3 * BLOCK


@pytest.mark.parametrize(
    "damage",
    [
        lambda journal: journal.write_bytes(journal.read_bytes()[:-4]),
        lambda journal: journal.write_bytes(journal.read_bytes() + b"17 0000"),
        lambda journal: journal.write_bytes(journal.read_bytes() + b"\0" * 500),
        lambda journal: journal.write_bytes(journal.read_bytes() + b"999999 00000000\n-1 x\n"),
        lambda journal: journal.write_bytes(journal.read_bytes() + b"19 00000000\n"),
        lambda journal: journal.write_bytes(b""),
        lambda journal: journal.write_bytes(b"\0" * 9000),
        lambda journal: journal.write_bytes(b"[]\n1 00000000\n"),
        lambda journal: journal.unlink(),
    ],
    ids=["torn", "torn-anew", "zeros", "out-of-range", "a-lie", "empty", "blank", "else", "gone"],
)
def test_a_damaged_journal_costs_bytes_and_never_the_file(
    hub: LocalHub, aside: Path, damage: Callable[[Path], object]
) -> None:
    left_behind(hub, aside)
    damage(journal_of(aside))
    pull(hub, aside)


def test_another_content_under_the_same_name_begins_anew(hub: LocalHub, aside: Path) -> None:
    left_behind(hub, aside)
    other = MODEL[:-1] + b"?"
    hub.repos[REPO].files["model.gguf"] = other
    pull(hub, aside, RepoFile("model.gguf", len(other), hashlib.sha256(other).hexdigest()))
    assert hub.sent["model.gguf"] == len(other)


def test_a_whole_file_without_its_last_step_asks_for_nothing(hub: LocalHub, aside: Path) -> None:
    """Killed between the last block and the end: the hash is all that is missing."""
    left_behind(hub, aside)
    rest = client(hub)
    done = threading.Event()

    def interrupted(bytes_done: int, _: int | None) -> None:
        if bytes_done == len(MODEL):
            done.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rest.download(REPO, hub.repos[REPO].commit, FILE, aside, interrupted)
    assert done.is_set()
    hub.forget()
    pull(hub, aside)
    assert hub.requests.total() == 0


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
def test_a_new_etag_for_the_rest(hub: LocalHub, aside: Path, *, known: bool) -> None:
    """Where the hash is known it decides; otherwise the ETag is all that tells two files apart."""
    file = FILE if known else RepoFile(FILE.path, FILE.size, None)
    hub.faults.append(Fault(CDN, cut=3_000_000, times=1))
    hub.faults.append(Fault(CDN, status=403))
    refused(hub, aside, file)
    hub.faults.clear()
    hub.forget()
    hub.faults.append(Fault(CDN, replace={"ETag": '"elsewhere"'}))
    done, _ = base.partial_progress(aside) or (0, 0)
    pull(hub, aside, file)
    assert hub.sent["model.gguf"] >= len(MODEL) - (done if known else 0)
    assert (hub.sent["model.gguf"] < len(MODEL)) is known


@pytest.mark.parametrize("fault", [None, Fault(CDN, whole=True)], ids=["ranges", "whole"])
def test_a_file_of_unknown_size(hub: LocalHub, aside: Path, fault: Fault | None) -> None:
    hub.faults += [fault] if fault else []
    pull(hub, aside, RepoFile("model.gguf", None, FILE.sha256))


@pytest.mark.parametrize("content", [b"", b"x", b"x" * BLOCK, b"x" * (BLOCK + 1)])
def test_small_files_and_edges(hub: LocalHub, aside: Path, content: bytes) -> None:
    for name in ("small.txt", "large.gguf"):
        hub.repos[REPO].files[name] = content
        pull(hub, aside, RepoFile(name, len(content)))


@pytest.mark.parametrize("left", [0, 1_500_000])
def test_a_full_disk_keeps_what_came(
    hub: LocalHub, aside: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    real = os.pwrite
    room = left

    def pwrite(descriptor: int, data: memoryview, at: int) -> int:
        nonlocal room
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= len(data)
        return real(descriptor, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        error = refused(hub, aside)
    assert isinstance(error, DiskFullError)
    done, _ = base.partial_progress(aside) or (0, None)
    assert done == left // BLOCK * BLOCK
    needed = f"{(len(MODEL) - done) / 1e9:.2f} GB more are needed for model.gguf"
    assert needed in error.message
    assert re.search(r"[\d.]+ GB are free", error.message)
    assert str(aside.parent) in error.message
    hub.forget()
    pull(hub, aside)
    assert hub.sent["model.gguf"] == len(MODEL) - done


def test_too_little_room_is_told_before_the_first_byte(
    hub: LocalHub, aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.files.free_bytes", lambda _: 1000)
    assert isinstance(refused(hub, aside), DiskFullError)
    assert hub.requests.total() == 0


def test_more_connections_where_each_is_slow(aside: Path) -> None:
    """A hub that gives every connection 4 MB/s: more of them must be used, within the limit."""
    content = random.Random(6).randbytes(8_000_000)
    most = 0
    with LocalHub({REPO: Repo({"model.gguf": content})}, rate=4e6) as hub:
        hub.tokens = {TOKEN}
        active: set[int] = set()

        def watch(_: str, __: int) -> None:
            nonlocal most
            active.add(threading.get_ident())
            most = max(most, len(active))

        hub.watch = watch
        file = RepoFile("model.gguf", len(content), hashlib.sha256(content).hexdigest())
        client(hub).download(REPO, hub.repos[REPO].commit, file, aside, lambda *_: None)
    assert aside.read_bytes() == content
    assert 2 <= most <= 8
    assert hub.sent["model.gguf"] == len(content)


def test_a_connection_too_many_is_done_without(aside: Path) -> None:
    """A host that refuses a second connection gets one, and the file is whole."""
    content = random.Random(6).randbytes(6_000_000)
    with LocalHub({REPO: Repo({"model.gguf": content})}, rate=6e6) as hub:
        hub.tokens = {TOKEN}
        hub.faults.append(Fault(CDN, status=503, skip=1, times=3))
        file = RepoFile("model.gguf", len(content), hashlib.sha256(content).hexdigest())
        client(hub).download(REPO, hub.repos[REPO].commit, file, aside, lambda *_: None)
    assert aside.read_bytes() == content


def test_read(hub: LocalHub) -> None:
    commit = hub.repos[REPO].commit
    there = client(hub)
    assert there.read(REPO, commit, "model.gguf", 0, 1000) == MODEL[:1000]
    assert hub.requests.total() == 2  # the redirect, and the bytes
    assert there.read(REPO, commit, "model.gguf", 4_999_000, 9_999_999) == MODEL[4_999_000:]
    assert there.read(REPO, commit, "model.gguf", 70, 71) == MODEL[70:71]
    assert there.read(REPO, commit, "model.gguf", 5_000_004, 5_000_009) == b""
    assert there.read(REPO, commit, "model.gguf", 9, 9) == b""
    assert hub.requests.total() == 5
    assert there.read(REPO, commit, "README.md", 2, 99) == b"a card"
    assert hub.leaked == []


def test_read_asks_again_when_the_signature_ran_out(hub: LocalHub) -> None:
    commit = hub.repos[REPO].commit
    there = client(hub)
    there.read(REPO, commit, "model.gguf", 0, 9)
    hub.faults.append(Fault(CDN, status=403, times=1))
    hub.forget()
    assert there.read(REPO, commit, "model.gguf", 5, 9) == MODEL[5:9]
    assert sum(n for request, n in hub.requests.items() if "resolve" in request) == 1


def test_read_without_ranges(hub: LocalHub) -> None:
    hub.faults.append(Fault(CDN, whole=True))
    commit = hub.repos[REPO].commit
    assert client(hub).read(REPO, commit, "model.gguf", 0, 1000) == MODEL[:1000]
    with pytest.raises(HubError, match="localhost cannot send a part of a file") as caught:
        client(hub).read(REPO, commit, "model.gguf", 5, 1000)
    assert "mirror without range requests" in (caught.value.hint or "")


def test_offline(hub: LocalHub, aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(hub, aside).message
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        client(hub).read(REPO, "main", "model.gguf", 0, 9)
    assert hub.requests.total() == 0


def test_a_proxy_that_nobody_serves(
    hub: LocalHub, aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.repos[REPO].commit
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, never listening: refused for sure
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pw@127.0.0.1:{bound.getsockname()[1]}")
        error = refused(hub, aside)
        assert "the proxy refuses or fails" in error.message
        assert "HTTPS_PROXY" in (error.hint or "")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        assert client(hub).read(REPO, commit, "model.gguf", 0, 4) == b"GGUF"


def test_a_proxy_is_used_and_told_its_password_only(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub itself answers requests in a proxy's form, with the whole address in the first line."""
    port = hub.url.rpartition(":")[2]
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pw@127.0.0.1:{port}")
    there = HuggingFaceHub("http://hub.invalid", TOKEN, QUICK)
    assert there.read(REPO, hub.repos[REPO].commit, "README.md", 0, 8) == b"# a card"


def test_the_clients_cache(hub: LocalHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    commit = hub.repos[REPO].commit
    there = client(hub)
    card = RepoFile("README.md", 8)
    assert there.cached(REPO, commit, FILE) is None
    hf_hub_download(REPO, "model.gguf", endpoint=hub.url, cache_dir=tmp_path / "home/hub")
    hf_hub_download(REPO, "README.md", endpoint=hub.url, cache_dir=tmp_path / "home/hub")
    hub.forget()
    found = there.cached(REPO, "another", FILE)
    assert found is not None
    assert found.read_bytes() == MODEL
    assert there.cached(REPO, commit, RepoFile("model.gguf", len(MODEL))) == found
    assert there.cached(REPO, commit, card) is not None
    assert there.cached(REPO, "another", card) is None
    assert there.cached(REPO, commit, RepoFile("README.md", 9)) is None
    assert there.cached(REPO, commit, RepoFile("model.gguf", len(MODEL), "0" * 64)) is None
    assert there.cached(REPO, commit, RepoFile("../../blobs/x", None)) is None
    with found.open("ab") as file:
        file.write(b"longer")
    assert there.cached(REPO, commit, FILE) is None
    assert hub.requests.total() == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """A CDN with a certificate of its own authority, such as a proxy that inspects TLS has."""
    authority, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    hub.cdn_tls(context)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    there = client(hub)
    commit = hub.repos[REPO].commit
    if trusted:
        assert there.read(REPO, commit, "model.gguf", 0, 4) == b"GGUF"
        return
    with pytest.raises(HubError, match="localhost: its certificate is not trusted here") as caught:
        there.read(REPO, commit, "model.gguf", 0, 4)
    assert "SSL_CERT_FILE" in (caught.value.hint or "")
    assert cdn_requests(hub) == 0


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
