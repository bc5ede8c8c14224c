"""Running the LocalAI stand-in on the host, from the development environment."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one HTTP answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    def events(self) -> list[Any]:
        """The JSON events of a stream, without the closing ``[DONE]``."""
        lines = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


@dataclass(frozen=True)
class StandIn:
    """A running stand-in."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text(errors="replace")

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. Raises ``ConnectionRefusedError`` while the port is closed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
        finally:
            connection.close()

    def chat(self, content: Any, **fields: Any) -> Answer:
        """A chat with one user message; ``model`` is llava unless given."""
        messages = [{"role": "user", "content": content}]
        return self.request(
            "POST", "/v1/chat/completions", {"model": "llava", "messages": messages} | fields
        )


@contextmanager
def starting(
    models: Path, backends: Path, port: int, log_file: Path, **environment: str
) -> Iterator[StandIn]:
    """A stand-in from the moment its process exists; the end of the block ends it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LOCALAI_")}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            _command("--models", models, "--backends", backends, "--port", port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=CHECKOUT,
            env=clean | {"STANDIN_STARTUP_SECONDS": "0"} | environment,
        )
    try:
        yield StandIn(port, process, log_file)
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def running(
    models: Path, backends: Path, port: int, log_file: Path, **environment: str
) -> Iterator[StandIn]:
    """A stand-in that answers ``/readyz``; ``RuntimeError`` with its log if it does not in 30 s."""
    with starting(models, backends, port, log_file, **environment) as stand_in:
        deadline = time.monotonic() + 30
        while not _is_ready(stand_in):
            if stand_in.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stand-in did not get ready:\n{stand_in.log}")
            time.sleep(0.02)
        yield stand_in


def command(
    *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the stand-in's commands to its end, for instance ``backends install llama-cpp``."""
    return subprocess.run(
        _command(*arguments),
        cwd=CHECKOUT,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.world.localai", *map(str, arguments)]


def _is_ready(stand_in: StandIn) -> bool:
    try:
        return stand_in.request("GET", "/readyz").status == http.client.OK
    except OSError:
        return False
