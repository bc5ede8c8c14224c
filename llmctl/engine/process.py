"""Services as supervised local processes: no container engine, the same contract.

A "container" is a directory below `home` that holds the specification, the state its supervisor
writes, and the log. An "image" is an installed Python distribution; its id is its version. Networks and
volumes are names only, because processes share the host's.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmctl.core.codec import canonical, decode
from llmctl.core.deployment import ServiceSpec
from llmctl.core.events import Listener
from llmctl.core.observed import Observed, ObservedService
from llmctl.engine.base import EngineInfo
from llmctl.engine.supervise import LOG, SPEC, STATE, read_json, same_process, write_json
from llmctl.errors import EngineError, ImageNotFoundError

STOP_S = 25.0  # the supervisor gives its child twenty seconds, then kills it
START_S = 10.0
POLL_S = 0.02
INSTALL = "pip install 'llmctl[local]'"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

# Releases that must not run: LiteLLM 1.82.7 and 1.82.8 were published by somebody else and stole
# credentials (BerriAI/litellm#24512).
KNOWN_BAD = {"litellm": {"1.82.7", "1.82.8"}}


class ProcessEngine:
    """Processes of one stack directory.

    Args:
        home: Where the directories of its services lie; it need not exist.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def info(self) -> EngineInfo:
        """Facts about this machine; the wheel's llama.cpp runs on the CPU."""
        machine = platform.machine()
        return EngineInfo(
            kind="process",
            version=_version("xllamacpp") or "not installed",
            machine=MACHINES.get(machine, machine),
            nvidia=False,
            host_gateway=None,
        )

    def observe(self, stack: str, images: tuple[str, ...]) -> Observed:
        """The services of a stack, and the distributions that are installed."""
        entries = sorted(self._home.glob(f"*/{SPEC}"))
        owned = [e.parent.name for e in entries if read_json(e).get("stack") == stack]
        found = (self.inspect(name) for name in owned)
        versions = {image: _version(image) for image in dict.fromkeys(images)}
        return Observed(
            services=tuple(s for s in found if s is not None),
            networks=self._named("networks", stack),
            volumes=self._named("volumes", stack),
            images={image: f"{image} {v}" for image, v in versions.items() if v},
        )

    def inspect(self, container: str) -> ObservedService | None:
        """One service by its container name."""
        spec = read_json(self._home / container / SPEC)
        if not spec:
            return None
        state = read_json(self._home / container / STATE)
        status = state.get("state", "created")
        if status in {"running", "restarting"} and not same_process(state.get("supervisor")):
            status = "dead"
        alive = status in {"running", "restarting"}
        return ObservedService(
            service=spec["service"],
            container=container,
            state=status,
            digest=spec["digest"],
            spec=spec["spec"],
            directory=spec["directory"],
            image_id=spec["image_id"],
            created=spec["created"],
            started=state.get("started"),
            exit_code=None if alive else state.get("exit_code"),
        )

    def pull_image(self, image: str, listen: Listener) -> None:
        """Nothing is installed behind the user's back: a missing distribution is named."""
        del listen
        self._image_id(image)

    def _image_id(self, image: str) -> str:
        version = _version(image)
        if version is None:
            raise ImageNotFoundError(
                f"the Python package {image} is not installed in this environment", hint=INSTALL
            )
        if version in KNOWN_BAD.get(image, ()):
            raise EngineError(
                f"{image} {version} must not be used: this release was compromised",
                hint=f"pip install --upgrade --force-reinstall {image}   # and change your credentials",
            )
        return f"{image} {version}"

    def create_network(self, stack: str, network: str) -> None:
        """Remember a name."""
        self._claim("networks", stack, network)

    def remove_network(self, network: str) -> None:
        """Forget it."""
        (self._home / "networks" / network).unlink(missing_ok=True)

    def create_volume(self, stack: str, volume: str) -> None:
        """Remember a name."""
        if volume not in self._named("volumes", stack):
            self._claim("volumes", stack, volume)

    def remove_volume(self, volume: str) -> None:
        """Forget it."""
        (self._home / "volumes" / volume).unlink(missing_ok=True)

    def _claim(self, kind: str, stack: str, name: str) -> None:
        place = self._home / kind / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(stack)
        except FileExistsError as error:
            raise EngineError(f"{kind[:-1]} {name} exists") from error

    def _named(self, kind: str, stack: str) -> tuple[str, ...]:
        found = sorted((self._home / kind).glob("*"))
        return tuple(f.name for f in found if f.read_text(encoding="utf-8") == stack)

    def create(
        self, stack: str, directory: str, network: str, spec: ServiceSpec, container: str
    ) -> None:
        """Write the directory of a service."""
        del network
        place = self._home / container
        image_id = self._image_id(spec.image)
        try:
            place.mkdir(parents=True)
        except FileExistsError as error:
            raise EngineError(f"a service named {container} exists", hint="llmctl down") from error
        record = {
            "stack": stack,
            "directory": directory,
            "service": spec.service,
            "digest": spec.digest,
            "spec": canonical(spec),
            "image_id": image_id,
            "created": datetime.now(UTC).isoformat(),
        }
        write_json(place / SPEC, record)

    def start(self, container: str) -> None:
        """Start its supervisor, which outlives this process."""
        place = self._place(container)
        found = self.inspect(container)
        if found and found.state in {"running", "restarting"}:
            return
        (place / STATE).unlink(missing_ok=True)
        spec = decode(ServiceSpec, json.loads(read_json(place / SPEC)["spec"]))
        with (place / LOG).open("ab") as log:
            # It forks into the background at once, so that nobody has to be its parent.
            subprocess.run(
                [sys.executable, "-m", "llmctl.engine.supervise", str(place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place,
                env=_environment(spec),
                check=True,
            )
        deadline = time.monotonic() + START_S
        while not read_json(place / STATE):
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the supervisor of {container} did not start", hint=f"cat {place / LOG}"
                )
            time.sleep(POLL_S)
        state = read_json(place / STATE)
        if state.get("refused"):
            raise EngineError(f"could not start {container}: {state['refused']}", hint=INSTALL)

    def stop(self, container: str) -> None:
        """End the supervisor, which ends its child; then make sure of both."""
        place = self._place(container)
        state = read_json(place / STATE)
        supervisor = state.get("supervisor")
        if same_process(supervisor):
            _signal(supervisor, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while same_process(supervisor) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        for process in (supervisor, read_json(place / STATE).get("child")):
            if same_process(process):
                _signal(process, signal.SIGKILL)
        state = read_json(place / STATE)
        if state.get("state") in {"running", "restarting"}:
            code = state.get("exit_code")
            write_json(place / STATE, state | {"state": "exited", "exit_code": code or 137})

    def rename(self, container: str, name: str) -> None:
        """Rename its directory."""
        place = self._place(container)
        if (self._home / name).exists():
            raise EngineError(f"a service named {name} exists")
        place.rename(self._home / name)

    def remove(self, container: str) -> None:
        """Stop it and remove its directory, log included."""
        if (self._home / container / SPEC).exists():
            self.stop(container)
            shutil.rmtree(self._home / container)

    def logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[str]:
        """Lines of its log file."""
        place = self._place(container) / LOG
        place.touch()
        with place.open("rb") as file:
            lines = file.read().decode("utf-8", "replace").splitlines()
            yield from lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
            rest = b""
            while follow:
                block = file.read()
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace")
                found = self.inspect(container)
                if not block and (found is None or found.state not in {"running", "restarting"}):
                    return
                if not block:
                    time.sleep(0.2)

    def port_holder(self, port: int) -> str | None:
        """Which running service of ours has the port."""
        for entry in sorted(self._home.glob(f"*/{SPEC}")):
            found = self.inspect(entry.parent.name)
            if found is None or found.state != "running":
                continue
            spec = decode(ServiceSpec, json.loads(found.spec))
            if any(p.host_port == port for p in spec.ports):
                return found.container
        return None

    def _place(self, container: str) -> Path:
        place = self._home / container
        if not (place / SPEC).exists():
            raise EngineError(f"no service {container}", hint="llmctl status")
        return place


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _environment(spec: ServiceSpec) -> dict[str, str]:
    """What the service sees: a few of the user's variables, and what its specification says."""
    kept = (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "VIRTUAL_ENV",
    )
    found: dict[str, str] = {k: os.environ[k] for k in kept if k in os.environ}
    return found | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | dict(spec.environment)


def _signal(process: Any, number: signal.Signals) -> None:
    try:
        # The child leads a group of its own; a supervisor leads its session.
        os.killpg(process["pid"], number)
    except ProcessLookupError:
        return
