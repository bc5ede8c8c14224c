"""Waiting for a turn, rewriting and linking: what the file edge does for pulls."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from llmctl import files
from llmctl.errors import LlmctlError

HOLD = """
import sys
from pathlib import Path
from llmctl import files
with files.turn(Path(sys.argv[1]), "the other one", lambda holder: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_free_turn_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "locks/x"
    heard: list[str] = []
    with files.turn(path, "me", heard.append):
        assert path.read_text() == f"me (pid {os.getpid()})"
    assert heard == []


def test_the_second_waits_and_hears_who_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "x"
    heard: list[str] = []
    with holder(path) as other:
        assert other.stdin is not None

        def waiting(who: str) -> None:
            heard.append(who)
            if len(heard) == 2 and other.stdin is not None:
                other.stdin.close()  # the other one ends, and the turn is ours

        with files.turn(path, "me", waiting):
            assert path.read_text() == f"me (pid {os.getpid()})"
    assert set(heard) == {f"the other one (pid {other.pid})"}
    assert len(heard) >= 2


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with holder(path) as other:
        other.kill()
        other.wait()
        with files.turn(path, "me", lambda _who: pytest.fail("nobody holds it")):
            pass
    with (
        files.exclusive(path, "me"),
        pytest.raises(LlmctlError, match=r"me \(pid \d+\) is at work"),
        files.exclusive(path, "me, too"),
    ):
        pass


def test_turns_do_not_overlap(tmp_path: Path) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with files.turn(tmp_path / "x", "worker", lambda _who: None):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_rewrite(tmp_path: Path) -> None:
    origin, target = tmp_path / "a", tmp_path / "sub/b"
    origin.write_bytes(b"old head" + b"x" * (2 * files.CHUNK + 7))
    blocks = files.rewrite(origin, 8, b"new", target)
    assert not target.exists()
    assert b"".join(blocks) == target.read_bytes() == b"new" + b"x" * (2 * files.CHUNK + 7)
    with pytest.raises(LlmctlError, match="No such file"):
        list(files.rewrite(tmp_path / "none", 0, b"x", target))


def test_a_range_of_a_file(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(b"0123456789")
    assert files.read_range(place, 2, 5) == b"234"
    assert files.read_range(place, 8, 50) == b"89"
    assert files.read_range(place, 50, 60) == b""


def test_a_link_follows_symbolic_links(tmp_path: Path) -> None:
    """As in the hub client's cache: a container would not see where such a link points."""
    blob, name, target = tmp_path / "blob", tmp_path / "name", tmp_path / "sub/target"
    blob.write_bytes(b"x")
    name.symlink_to(blob)
    assert files.link_or_copy(name, target)
    assert not target.is_symlink()
    assert target.samefile(blob)


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_copy_where_no_link_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    origin, target = tmp_path / "a", tmp_path / "b"
    origin.write_bytes(b"x" * 100_000)
    assert not files.link_or_copy(origin, target)
    assert target.read_bytes() == origin.read_bytes()
    assert not target.samefile(origin)
    # A copy of its own: writing to it leaves the original alone.
    target.write_bytes(b"y")
    assert origin.read_bytes() == b"x" * 100_000


def test_other_failures_of_a_link_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"y")
    with pytest.raises(LlmctlError, match="File exists"):
        files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"y"
