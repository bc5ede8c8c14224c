"""Edge to the file system: whole files or none, hashes, and a lock between processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmctl.errors import ConfigError, DiskFullError, LlmctlError

CHUNK = 1 << 20
_POLL_S = 0.2
_FICLONE = 0x40049409  # Linux: make a file share another's blocks until one of them is written to


def read_text(path: Path) -> str | None:
    """The file as UTF-8 text, None when it does not exist; ConfigError when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a directory, a file was expected") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 (byte {error.start})",
            hint=f"iconv -f SHIFT_JIS -t UTF-8 {path} > {path}.utf8   # if it was Shift_JIS",
        ) from error
    except OSError as error:
        raise _translated(error, path) from error


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write aside, fsync, rename: readers see the old file or the new one, never a part.

    Raises:
        DiskFullError: no room; the old file is untouched.
        LlmctlError: no permission, or a read-only file system.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name starts with a dot so that LocalAI, which loads every *.yaml, never sees it.
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise _translated(error, path) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file in lower-case hex; `on_bytes` hears the bytes hashed so far."""
    digest = hashlib.sha256()
    done = 0
    try:
        with path.open("rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
                done += len(block)
                if on_bytes:
                    on_bytes(done)
    except OSError as error:
        raise _translated(error, path) from error
    return digest.hexdigest()


def head(path: Path, size: int) -> bytes:
    """The first bytes of a file, at most `size`."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _translated(error, path) from error


def read_range(path: Path, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file; fewer where it ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    except OSError as error:
        raise _translated(error, path) from error


def put_in_place(aside: Path, final: Path) -> None:
    """Give a file that was written aside on the same file system its final name, for good."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(final)
        sync_directory(final.parent)
    except OSError as error:
        raise _translated(error, final) from error


def delete(path: Path) -> None:
    """Delete a file; one that is gone already is fine."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _translated(error, path) from error


def copy(origin: Path, target: Path) -> None:
    """Copy a file's content to `target`, which is made with its directory."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, target)
    except OSError as error:
        raise _translated(error, target) from error


def rewrite(origin: Path, rest: int, head: bytes, target: Path) -> Iterator[bytes]:
    """Write `head` and then `origin` from byte `rest` on to `target`, yielding each block written.

    Nothing is written before the iterator is asked, and the file is whole when it ends.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with origin.open("rb") as source, target.open("wb") as copy:
            source.seek(rest)
            block = head
            while block:
                copy.write(block)
                yield block
                block = source.read(CHUNK)
    except OSError as error:
        raise _translated(error, target) from error


def link_or_copy(origin: Path, target: Path) -> bool:
    """Make `target` the same file as `origin`, or a copy of it; whether it is the same.

    Where a hard link is not allowed, a copy shares the original's blocks if the file system can do
    that. Symbolic links are followed: a link into a place that a container does not see is of no
    use.
    """
    real = origin.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(real)
        except OSError as error:
            # Another file system, one without hard links, or a file of someone else's.
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
                raise
            _clone_or_copy(real, target)
            return False
    except OSError as error:
        raise _translated(error, target) from error
    return True


def _clone_or_copy(origin: Path, target: Path) -> None:
    with origin.open("rb") as source, target.open("wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, source.fileno())
        except OSError:  # another file system, or one that cannot
            shutil.copyfileobj(source, copy, CHUNK)


def back_up(path: Path) -> Path:
    """Copy a file beside itself as NAME.bak, NAME.bak.1, ... and return the copy's path."""
    number = 0
    while True:
        suffix = f".{number}" if number else ""
        copy = path.with_name(f"{path.name}.bak{suffix}")
        try:
            # "x": an earlier backup is never overwritten, not even by a parallel run.
            with copy.open("xb") as target, path.open("rb") as source:
                shutil.copyfileobj(source, target)
        except FileExistsError:
            number += 1
            continue
        return copy


def free_bytes(directory: Path) -> int:
    """Bytes an ordinary user may still write below `directory`, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


@contextmanager
def exclusive(path: Path, holder: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; it vanishes with the process.

    Raises:
        LlmctlError: another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise _translated(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            other = file.read().strip() or "another llmctl"
            raise LlmctlError(
                f"{path}: {other} is at work on this stack",
                hint="wait until it has ended, then run this again",
            ) from error
        file.truncate(0)
        file.write(f"{holder} (pid {os.getpid()})")
        file.flush()
        yield


@contextmanager
def turn(path: Path, holder: str, while_waiting: Callable[[str], None]) -> Iterator[None]:
    """As `exclusive`, but wait for the lock; `while_waiting` hears now and then who holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise _translated(error, path) from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                while_waiting(file.read().strip() or "another llmctl")
                time.sleep(_POLL_S)
        file.truncate(0)
        file.write(f"{holder} (pid {os.getpid()})")
        file.flush()
        yield


def _translated(error: OSError, path: Path) -> LlmctlError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(
            f"{path}: no space left on the device",
            hint="df -h . ; free some space, then run it again",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return LlmctlError(
            f"{path}: {error.strerror or error}",
            hint=f"ls -ld {path.parent}   # who owns it? LocalAI's container writes as root",
        )
    return LlmctlError(f"{path}: {error.strerror or error}")
