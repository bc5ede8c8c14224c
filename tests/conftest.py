"""Fixtures for everyone, and the rule for tests that need a Docker Engine.

They use the engine of DOCKER_HOST or the default socket. Where none answers they are skipped with
the reason, unless REQUIRE_DOCKER=1 (set by .ci/run), where they fail: a gate must not skip in silence.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import cache

import docker
import pytest

from llmctl.engine.docker import DockerEngine
from llmctl.errors import LlmctlError
from tests.integration.stack import Workbench
from tests.integration.stack import workbench as open_workbench
from tests.world import images as world_images

LOOPBACK_ONLY = """
import psutil
assert set(psutil.net_if_addrs()) == {"lo"}, psutil.net_if_addrs()
"""


@cache
def engine_fault() -> str | None:
    """Why no Docker Engine can be used, None when one answers."""
    fault = None
    with warnings.catch_warnings(), closing(DockerEngine(timeout_s=10)) as engine:
        # The SDK leaks its socket when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            engine.info()
        except LlmctlError as error:
            fault = error.message
        gc.collect()
    return fault


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None:
        return
    fault = engine_fault()
    if fault and os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but {fault}", pytrace=False)
    if fault:
        pytest.skip(f"{fault} (start one, or: make unit)")


@pytest.fixture(scope="session")
def images() -> None:
    """The test images, built where they are missing."""
    with closing(docker.from_env(timeout=600)) as client:
        world_images.ensure(client, say=print)


@pytest.fixture(scope="session")
def workbench(images: None) -> Iterator[Workbench]:
    """Images, a local hub with the guide's repository, and the engine."""
    del images
    with open_workbench() as bench:
        yield bench


@pytest.fixture(scope="module")
def offline() -> Iterator[tuple[str, ...]]:
    """The words that enter a namespace with loopback only; none where we are not root."""
    if sys.platform != "linux" or os.geteuid() != 0:
        yield ()
        return
    name = f"llmctl-offline-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    prefix = ("nsenter", f"--net=/run/netns/{name}")
    subprocess.run([*prefix, sys.executable, "-c", LOOPBACK_ONLY], check=True)
    yield prefix
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No LLMCTL_* of the developer's reaches a test."""
    for name in list(os.environ):
        if name.startswith("LLMCTL_"):
            monkeypatch.delenv(name)
