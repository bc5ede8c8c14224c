"""The pure parts of a transfer: blocks, journal, patience, the number of connections."""

from __future__ import annotations

import random
import socket
import ssl
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.hub.blocks import Blocks
from llmctl.hub.errors import Asked, translate
from llmctl.hub.failures import BrokenError, CertificateError, broken, wait_s
from llmctl.hub.journal import BLOCK, Journal, block_length, journal_of, partial_progress
from llmctl.hub.pace import Patience, Width
from llmctl.hub.store import Store

ASKED = Asked("https://hub.example", "org/repo", "main", "x.gguf", with_token=False)


@settings(deadline=None)
@given(size=st.integers(0, 40 * BLOCK), seed=st.integers(0, 2**32))
def test_every_block_is_fetched_once_and_all_of_them(size: int, seed: int) -> None:
    """Whatever is taken, given back and damaged in between."""
    chance = random.Random(seed)
    blocks = Blocks(size, chance.sample(range(-(-size // BLOCK)), k=-(-size // BLOCK) // 3))
    under_way: list[range] = []
    damaged = 0
    while blocks.done < size or under_way:
        taken = blocks.take(chance.randrange(1, 9)) if chance.random() < 0.6 else None
        if taken is not None:
            assert not any(set(taken) & set(other) for other in under_way)
            assert not any(map(blocks.is_here, taken))
            under_way.append(taken)
        elif under_way:
            ended = under_way.pop(chance.randrange(len(under_way)))
            arrived = ended if chance.random() < 0.7 else ended[: chance.randrange(len(ended))]
            for index in arrived:
                blocks.arrived(index)
            blocks.given_back(ended)
            if damaged < 5 and arrived and chance.random() < 0.2:
                blocks.lost(arrived[0])
                damaged += 1
        assert 0 <= blocks.done <= size
    assert blocks.done == size
    assert blocks.missing == 0
    assert blocks.take(9) is None
    assert all(map(blocks.is_here, range(len(blocks))))


def test_blocks_cover_the_file() -> None:
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7):
        assert sum(block_length(index, size) for index in range(len(Blocks(size)))) == size


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 200), rubbish=st.binary(max_size=40))
def test_a_journal_torn_anywhere_claims_nothing_that_is_not_there(
    cut: int, rubbish: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    aside = tmp_path_factory.mktemp("journal") / "x.gguf"
    size = 3 * BLOCK + 5
    content = random.Random(1).randbytes(size)
    aside.write_bytes(content)
    journal = Journal(aside, "sha256:00", size)
    for index in range(4):
        journal.record(index, zlib.crc32(content[index * BLOCK :][:BLOCK]))
    journal.close()
    written = journal_of(aside).read_bytes()
    journal_of(aside).write_bytes(written[:cut] + rubbish)
    again = Journal(aside, "sha256:00", size)
    claimed = again.recorded.checksums
    again.record(3, 7)
    again.close()
    honest = {
        index: checksum
        for index, checksum in claimed.items()
        if checksum == zlib.crc32(content[index * BLOCK :][:BLOCK])
    }
    if b"\n" not in rubbish:
        assert honest == claimed
    last = Journal(aside, "sha256:00", size)
    last.close()
    assert last.recorded.checksums == {**claimed, 3: 7}


def test_a_journal_of_another_content_is_begun_anew(tmp_path: Path) -> None:
    aside = tmp_path / "x.gguf"
    store = Store(aside, "sha256:00", 3 * BLOCK)
    store.put(1, b"x" * BLOCK)
    store.close()
    assert partial_progress(aside) == (BLOCK, 3 * BLOCK)
    for content, size in (("sha256:01", 3 * BLOCK), ("sha256:01", 2 * BLOCK)):
        store = Store(aside, content, size)
        assert store.blocks.done == 0
        store.close()
    assert aside.stat().st_size <= 2 * BLOCK


def test_no_journal_no_progress(tmp_path: Path) -> None:
    assert partial_progress(tmp_path / "x.gguf") is None
    (tmp_path / "x.gguf").write_bytes(b"x")
    assert partial_progress(tmp_path / "x.gguf") is None


@settings(deadline=None)
@given(failures=st.integers(1, 2000))
def test_pauses_grow_and_are_bounded(failures: int) -> None:
    patience = Patience()
    pause = patience.pause_s(failures)
    assert patience.first_s / 2 <= pause <= patience.most_s
    if failures < 5:
        assert pause <= patience.first_s * 2 ** (failures - 1)


def settle(rate_of: dict[int, float]) -> int:
    """The width for a host that gives so many bytes a second over so many connections."""
    width = Width()
    for _ in range(6):
        width.measured(rate_of[width.wanted])
    return width.wanted


def test_connections_are_added_while_the_sum_grows() -> None:
    assert settle({1: 20, 2: 40, 4: 80, 8: 160}) == 8
    assert settle({1: 20, 2: 40, 4: 41, 8: 0}) == 2
    assert settle({1: 20, 2: 20, 4: 0, 8: 0}) == 1
    assert settle({1: 20, 2: 15, 4: 0, 8: 0}) == 1


def test_a_settled_number_is_tried_again_later() -> None:
    width = Width()
    for _ in range(40):
        width.measured(20)
    before = width.wanted
    seen = {before}
    for _ in range(40):
        width.measured(20 * width.wanted)
        seen.add(width.wanted)
    assert 8 in seen


def test_a_host_that_drops_a_connection_gets_no_more_of_them() -> None:
    width = Width()
    width.measured(20)
    assert width.wanted == 2
    width.failed(1)
    for _ in range(50):
        width.measured(20)
    assert width.wanted == 1


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("soon", None),
        ("-5", None),
        ("1" * 400, None),
        ("", None),
    ],
)
def test_retry_after(after: str, seconds: float | None) -> None:
    assert wait_s({"Retry-After": after}) == seconds


def test_retry_after_a_date() -> None:
    waits = wait_s({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=90))})
    assert waits is not None
    assert 60 < waits <= 90
    assert wait_s({}) is None


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_connection_failures_are_told_apart() -> None:
    from urllib3.exceptions import ProxyError, SSLError

    distrusted = ssl.SSLCertVerificationError("x")
    distrusted.verify_message = "self-signed certificate"
    cases: list[tuple[Exception, type[Exception], str]] = [
        (
            SSLError(distrusted),
            CertificateError,
            "its certificate is not trusted here: self-signed",
        ),
        (
            caused(ProxyError("x", SSLError(distrusted)), distrusted),
            CertificateError,
            "not trusted",
        ),
        (ProxyError("x", ConnectionRefusedError()), BrokenError, "the proxy refuses or fails"),
        (caused(OSError(), socket.gaierror()), BrokenError, "the name does not resolve"),
        (caused(OSError(), TimeoutError()), BrokenError, "cdn.example: no answer in time"),
        (ConnectionRefusedError(), BrokenError, "cdn.example: refuses the connection"),
        (ConnectionResetError(), BrokenError, "the connection to cdn.example failed"),
    ]
    for error, kind, words in cases:
        failure = broken("cdn.example", error)
        failure.__cause__ = error
        assert type(failure) is kind
        told = translate(failure, ASKED)
        assert words in told.message
        assert told.hint


def test_a_second_try_is_only_worth_it_where_something_can_change() -> None:
    assert not broken("h", ssl.SSLCertVerificationError()).passes
    refused = broken("h", ConnectionRefusedError())
    refused.__cause__ = ConnectionRefusedError()
    assert isinstance(refused, BrokenError)
    assert refused.passes
    assert refused.at_once
    reset = broken("h", ConnectionResetError())
    assert isinstance(reset, BrokenError)
    assert not reset.at_once
