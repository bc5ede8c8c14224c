"""Building the images of spec.py in whatever engine a Docker client reaches."""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import docker.errors

from tests.world.images.spec import CHECKOUT, HERE, IMAGES, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from docker import DockerClient

LABEL = "llmctl-test.content"
_ENVIRONMENT = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8"
# Commands that busybox provides, where Debian's own package of the command is left out.
_APPLETS = [
    "sh",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "kill",
    "killall",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "nc",
    "nslookup",
    "ping",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
]
# Images are built at the same time and share parts: each part is made by one of them.
_filling: defaultdict[Path, Lock] = defaultdict(Lock)


class ImageError(RuntimeError):
    """A part of an image could not be made; the message holds the failing command's output."""


def ensure(
    client: DockerClient, names: Iterable[str] = tuple(IMAGES), *, say: Callable[[str], None]
) -> None:
    """Build the named images (keys of ``IMAGES``) that are missing or out of date.

    ``say`` gets a line for each step. Downloads are kept in ``TEST_CACHE`` (default
    ``~/.cache/llmctl-tests``), keyed by what they hold. Raises ``ImageError``.
    """
    stale = [IMAGES[name] for name in names if not _is_current(client, IMAGES[name])]
    from_debs = shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None
    build = _import_image if from_debs else _build_on_base
    with ThreadPoolExecutor(max_workers=3) as pool:
        for tag, seconds in pool.map(lambda image: build(client, image, say), stale):
            say(f"{tag}: built in {seconds:.0f} s")


def _is_current(client: DockerClient, image: Image) -> bool:
    try:
        return client.images.get(image.tag).labels.get(LABEL) == image.digest()
    except docker.errors.ImageNotFound:
        return False


def _import_image(
    client: DockerClient, image: Image, say: Callable[[str], None]
) -> tuple[str, float]:
    started = time.monotonic()
    debs = _debs(image.debs, say)
    site = _site(image.requirements, say) if image.requirements else None
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        for deb in debs:
            _run("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -x -C "$1"', str(deb), str(root))
        _finish_root(root)
        if site:
            shutil.copytree(site, root / "opt/site", symlinks=True)
        _copy_files(image, root)
        if site:
            _compile(root)
        archive = Path(scratch, "root.tar")
        _run("tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(archive), ".")
        repository, tag = image.tag.split(":")
        say(f"{image.tag}: importing {archive.stat().st_size // 2**20} MiB")
        client.api.import_image(
            str(archive),
            repository=repository,
            tag=tag,
            changes=[f"ENV {_ENVIRONMENT}", *image.changes, f"LABEL {LABEL}={image.digest()}"],
        )
    return image.tag, time.monotonic() - started


def _build_on_base(
    client: DockerClient, image: Image, say: Callable[[str], None]
) -> tuple[str, float]:
    """Without Debian's tools: a Dockerfile on a public image, with pip inside the container."""
    started = time.monotonic()
    say(f"{image.tag}: building on {image.base}")
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        (context / "root").mkdir()
        _copy_files(image, context / "root")
        lines = [f"FROM {image.base}"]
        if image.requirements:
            shutil.copyfile(HERE / image.requirements, context / "requirements.txt")
            install = "pip install --no-deps --target /opt/site -r /tmp/requirements.txt"
            link = "ln -s /usr/local/bin/python3 /usr/bin/python3"  # the name our scripts use
            lines += ["COPY requirements.txt /tmp/", f"RUN {install} && {link}"]
        lines += ["COPY root/ /", *image.changes, f"LABEL {LABEL}={image.digest()}"]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        client.images.build(path=scratch, tag=image.tag, rm=True)
    return image.tag, time.monotonic() - started


def _debs(packages: tuple[str, ...], say: Callable[[str], None]) -> list[Path]:
    """The packages' files, from the cache or from the archive that apt is set up for."""

    def download(directory: Path) -> None:
        say(f"downloading {len(packages)} Debian packages")
        # "root": apt's own user cannot write into our directory, and warns about it
        _run(
            "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=directory
        )

    return sorted(_cached("debs", " ".join(packages), download).glob("*.deb"))


def _site(requirements: str, say: Callable[[str], None]) -> Path:
    """A directory with the Python packages, for Python 3.11 on Linux."""
    path = HERE / requirements

    def install(directory: Path) -> None:
        say(f"installing {requirements}")
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-compile", "--only-binary=:all:", "--python-version=3.11"),
            *("--target", str(directory), "--requirement", str(path)),
        )

    return _cached("site", path.read_text(), install)


def _cached(kind: str, content: str, fill: Callable[[Path], None]) -> Path:
    """A directory that ``fill`` wrote for this content, now or earlier; never a half-filled one."""
    place = os.environ.get("TEST_CACHE") or Path.home() / ".cache" / "llmctl-tests"
    cache = Path(place).absolute()
    target = cache / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    with _filling[target]:
        if not target.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{kind}-") as scratch:
                staging = Path(scratch, "filled")
                staging.mkdir()
                fill(staging)
                try:
                    staging.rename(target)
                except OSError:
                    if not target.is_dir():  # else another process was faster
                        raise
    return target


def _finish_root(root: Path) -> None:
    """What the packages' maintainer scripts would have done, as far as the tests need it."""
    (root / "bin").mkdir(exist_ok=True)
    for applet in _APPLETS:
        target = root / "bin" / applet
        if not target.exists():
            target.symlink_to("busybox")
    if (root / "usr/bin/python3.11").exists():
        (root / "usr/bin/python3").symlink_to("python3.11")
    for name, mode in (("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("run", 0o755)):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian"):
        shutil.rmtree(root / waste, ignore_errors=True)


def _copy_files(image: Image, root: Path) -> None:
    for source, target in image.files:
        copy = root / target.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / source, copy)
        copy.chmod(0o644 if copy.suffix == ".py" else 0o755)


def _compile(root: Path) -> None:
    """Byte code ahead of time halves LiteLLM's start; unchecked, as the archive changes times."""
    for directory in ("opt", "usr/lib/python3.11"):
        compileall.compile_dir(
            root / directory,
            stripdir=str(root),
            prependdir="/",
            quiet=2,
            workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command[:3])} …: {done.stdout}{done.stderr}")
