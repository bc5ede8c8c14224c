"""The cgroups this process is in, and all above them, which limit it as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.host.probing import text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Directories of a controller's cgroups, this process's own first, each with its version, 1 or 2.

    A path that is not there is given, too: a container sees its own group mounted at the top, under
    a path that only the host knows.

    Args:
        root: Where /proc and /sys are looked for.
        controller: cpu or memory.
    """
    mounts = root / "sys/fs/cgroup"
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or "\0" in path:
            continue
        if not controllers:
            yield from ((2, group) for group in _up(mounts, path))
        elif controller in controllers.split(","):
            # "cpu,cpuacct" is mounted under either name.
            for mount in dict.fromkeys((controllers, controller)):
                yield from ((1, group) for group in _up(mounts / mount, path))


def _up(mount: Path, path: str) -> Iterator[Path]:
    # ".." is how the kernel writes a group outside of the cgroup namespace.
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])
