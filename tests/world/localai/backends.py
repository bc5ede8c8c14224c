"""Inference backends on disk (core/gallery/backends.go, pkg/system/capabilities.go).

A backend is a directory with a ``run.sh``. ``llama-cpp`` is a meta backend: a directory with a
``metadata.json`` that names the concrete one for this hardware. Here the "download" writes those
files; what they would run is in-process.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world.localai.settings import Settings

log = logging.getLogger("localai")

_META = "llama-cpp"
_BY_CAPABILITY = {
    "default": "cpu-llama-cpp",
    "nvidia": "cuda12-llama-cpp",
    "nvidia-cuda-12": "cuda12-llama-cpp",
    "nvidia-cuda-13": "cuda13-llama-cpp",
    "amd": "rocm-llama-cpp",
    "intel": "intel-sycl-f16-llama-cpp",
    "vulkan": "vulkan-llama-cpp",
}
_RUN = """#!/bin/sh
# Installed by the stand-in: it serves the model in its own process, so this file only has to be
here. exit 0
"""


class BackendInstallError(RuntimeError):
    """The install failed; nothing is left behind."""


def installed(directory: Path) -> list[str]:
    """Names under which a runnable backend can be asked for."""
    names = [path.name for path in sorted(directory.glob("[!.]*")) if path.is_dir()]
    return [name for name in names if is_installed(directory, name)]


def is_installed(directory: Path, name: str) -> bool:
    """True for a directory with a ``run.sh``, or a meta backend whose concrete one has it."""
    if (directory / name / "run.sh").is_file():
        return True
    metadata = directory / name / "metadata.json"
    if not metadata.is_file():
        return False
    concrete = json.loads(metadata.read_text()).get("meta_backend_for", "")
    return bool(concrete) and (directory / concrete / "run.sh").is_file()


def install(
    settings: Settings, reference: str, name: str | None, progress: Callable[[str], None]
) -> None:
    """Install a gallery name, or an ``oci://`` reference under ``name``.

    A runnable backend of that name ends it at once, whatever variant it is: a volume that was
    filled by the CPU image keeps its CPU backend under a CUDA image. Raises
    ``BackendInstallError``.
    """
    target = name or reference
    if reference.startswith("oci://") and name is None:
        raise BackendInstallError("a name is required for an OCI image")
    if is_installed(settings.backends, target):
        log.info("Backend already installed name=%s", target)
        return
    known = {_META, *_BY_CAPABILITY.values()}
    if not reference.startswith("oci://") and reference not in known:
        raise BackendInstallError(f'no backend found with name "{reference}"')
    for percent in (0, 25, 50, 75, 100):
        progress(f"Downloading {reference}: {percent}%")
        time.sleep(settings.install_s / 5)
        if settings.install_error and percent:
            raise BackendInstallError(
                f'failed to download backend "{target}": {settings.install_error}'
            )
    if reference.startswith("oci://") or target != _META:
        _write(settings.backends, target, {"name": target})
        return
    concrete = _BY_CAPABILITY.get(settings.capability, _BY_CAPABILITY["default"])
    _write(settings.backends, concrete, {"name": concrete, "alias": _META})
    _write(settings.backends, _META, {"name": _META, "meta_backend_for": concrete}, runnable=False)


def _write(directory: Path, name: str, metadata: dict[str, str], *, runnable: bool = True) -> None:
    """Staged beside the target and renamed, so that a broken install never looks like a backend."""
    directory.mkdir(parents=True, exist_ok=True)
    staging = directory / f".{name}.install-tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    (staging / "metadata.json").write_text(json.dumps(metadata, indent=2))
    if runnable:
        (staging / "run.sh").write_text(_RUN)
        (staging / "run.sh").chmod(0o755)
    shutil.rmtree(directory / name, ignore_errors=True)
    staging.rename(directory / name)
