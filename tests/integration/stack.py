"""A user's view of a stack under test: a directory, an environment, and the `llmctl` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from llmctl.paths import bundled_directory
from tests.world.hub import LocalHub, Repo
from tests.world.images import LITELLM, LOCALAI, TINY

LLAVA_REPO = "mys/ggml_llava-v1.5-7b"
PICTURE_PORT = 28555
GATEWAY_PORT, LOCALAI_PORT = 28000, 28080
BYSTANDER = "llmctl-test-bystander"
RUN_S = 300


@dataclass
class Stack:
    """One stack directory.

    Attributes:
        root: The directory.
        name: The stack's name.
        environment: What the commands run with.
        prefix: Words before each command, such as one that enters a network namespace.
        localai_image: The stand-in's image.
    """

    root: Path
    name: str
    environment: dict[str, str]
    localai_image: str
    gateway: str = f"http://127.0.0.1:{GATEWAY_PORT}"
    prefix: tuple[str, ...] = ()

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `llmctl ARGUMENTS` in the stack's directory."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "llmctl", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    def ok(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run and demand success."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Run with `--output json`, demand success, and read stdout."""
        return json.loads(self.ok(*arguments, "--output", "json").stdout)

    def docker(self, *arguments: str) -> str:
        """Run the docker client; its stdout without the last line break."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def containers(self) -> dict[str, str]:
        """Name -> id and start time of the stack's containers: a restart shows as a change."""
        found = {}
        label = f"label=llmctl.stack={self.name}"
        for name in self.docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split():
            found[name] = self.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", name)
        return found

    def ids(self) -> dict[str, str]:
        """Name -> id of the stack's containers: a restart does not show."""
        return {name: seen.split()[0] for name, seen in self.containers().items()}

    def configure(self, text: str) -> None:
        """Write llmctl.yaml."""
        (self.root / "llmctl.yaml").write_text(text, encoding="utf-8")


class Workbench:
    """Everything a stack under test needs: images, a hub with the guide's model, an engine.

    Attributes:
        hub: The local hub.
        host_gateway: The host's address as containers see it.
        localai: Image of the LocalAI stand-in that trusts our picture server.
    """

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self.client = docker.from_env()
        bridge = self.client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        self.host_gateway: str = bridge["Gateway"]
        # LocalAI refuses pictures from private addresses, and a test has no others.
        self.localai = "llmctl-test/localai-with-pictures:1"
        changes = (
            f"FROM {LOCALAI}\nENV STANDIN_TRUSTED_PICTURE_URLS={self.host_gateway}:{PICTURE_PORT}\n"
        )
        subprocess.run(
            ["docker", "build", "-q", "-t", self.localai, "-"],
            input=changes.encode(),
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            check=True,
        )

    def stack(self, root: Path, name: str = "llmctl-e2e") -> Stack:
        """A stack directory whose environment names our images; no llmctl.yaml is needed."""
        environment = clean_environment() | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(root / ".hf"),
            "HF_HUB_DISABLE_XET": "1",
            "LLMCTL_NAME": name,
            "LLMCTL_ENGINE": "docker",
            "LLMCTL_LOCALAI_IMAGE": self.localai,
            "LLMCTL_LITELLM_IMAGE": LITELLM,
            "LLMCTL_CONTEXT": "1024",
            "LLMCTL_GPU": "none",
        }
        return Stack(root, name, environment, self.localai)

    @contextmanager
    def bystander(self, **options: Any) -> Iterator[Any]:
        """A container, a network and a volume of somebody else, gone at the end of the block."""
        network = self.client.networks.create(BYSTANDER)
        volume = self.client.volumes.create(BYSTANDER)
        container = self.client.containers.run(
            TINY, ["sleep", "600"], name=BYSTANDER, network=BYSTANDER, detach=True, **options
        )
        try:
            yield container
        finally:
            container.remove(force=True)
            network.remove()
            volume.remove()


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of llmctl's or the hub's, with our checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMCTL_", "HF_"))}
    return kept | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@contextmanager
def workbench() -> Iterator[Workbench]:
    """A workbench whose hub serves the guide's repository, with the canary behind its file names."""
    canary = bundled_directory("canary")
    files: dict[str, bytes | Path] = {
        "ggml-model-q4_k.gguf": canary / "canary-f16.gguf",
        "mmproj-model-f16.gguf": canary / "mmproj-canary-f16.gguf",
        "README.md": b"---\nlicense: llama2\n---\n",
    }
    with LocalHub({LLAVA_REPO: Repo(files, licence="llama2")}) as hub:
        bench = Workbench(hub)
        try:
            yield bench
        finally:
            bench.client.close()
