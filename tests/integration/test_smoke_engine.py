"""The smoke test against real llama.cpp behind LocalAI's surface, seeing and blind in many ways."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llmctl import http
from llmctl.cli.main import run as llmctl
from llmctl.core.capabilities import Capabilities
from llmctl.core.events import silent
from llmctl.core.secret import Secret
from llmctl.core.services import Hop
from llmctl.core.sight import Finding, Kind
from llmctl.core.smoke_report import SmokeReport
from llmctl.ops.models import load_catalog
from llmctl.ops.smoke import run
from tests.peer import Request, Response, peer
from tests.world.tiny_model import PICTURE_TOKENS, WITH_PICTURE, WITHOUT_PICTURE, write_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = """\
name: llava
backend: llama-cpp
parameters:
  model: ggml-model-q4_k.gguf
mmproj: mmproj-model-f16.gguf
context_size: 2048
threads: 1
roles:
  user: "USER:"
  assistant: "ASSISTANT:"
template:
  chat: llava
stopwords:
  - "USER:"
"""
TEMPLATE = "{{.Input}}\nASSISTANT:"
NO_BACKEND = "backend not found: llama-cpp"
START_DEADLINE_S = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory that works, to be copied and broken."""
    directory = tmp_path_factory.mktemp("models")
    write_pair(directory)
    (directory / "llava.yaml").write_text(CONFIG)
    (directory / "llava.tmpl").write_text(TEMPLATE)
    return directory


@pytest.fixture
def models(files: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    for file in files.iterdir():
        os.link(file, directory / file.name)
    return directory


def rewrite(file: Path, text: str) -> None:
    file.unlink()  # the link, not the file that other tests share
    file.write_text(text)


@contextmanager
def localai(models: Path, *, backend: bool = True, **environment: str) -> Iterator[str]:
    """LocalAI's stand-in on a free port; yields its base URL without /v1."""
    backends = models.parent / "backends"
    with closing(socket.create_server(("127.0.0.1", 0))) as reserved:
        port = reserved.getsockname()[1]
    command = [
        *(sys.executable, "-m", "tests.world.localai"),
        *("--models", str(models), "--backends", str(backends), "--port", str(port)),
    ]
    variables = {**os.environ, "STANDIN_STARTUP_SECONDS": "0", **environment}
    log = models.parent / "localai.log"
    with log.open("wb") as output:
        if backend:
            install = [*command, "backends", "install", "llama-cpp"]
            subprocess.run(install, env=variables, stdout=output, stderr=output, check=True)
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            if http.get(f"{url}/readyz", timeout=5).ok:
                return
        except http.UnreachableError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def forward(url: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Request], Response]:
    """A gateway to `url` that does something to each request."""

    def answer(request: Request) -> Response:
        body = request.document
        change(body)
        onward = urllib.request.Request(
            url + request.path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(onward, timeout=60) as reply:
                return Response(
                    200, [reply.read()], {"Content-Type": reply.headers["Content-Type"]}
                )
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.read())

    return answer


def pass_on(body: dict[str, Any]) -> None:
    del body


def without_data_prefix(body: dict[str, Any]) -> None:
    """LocalAI logs that it cannot use such a picture, and answers 200 without it."""
    for message in body["messages"]:
        for part in message["content"]:
            if isinstance(part, dict) and "image_url" in part:
                part["image_url"]["url"] = part["image_url"]["url"].partition(",")[2]


def examine(url: str, change: Callable[[dict[str, Any]], None] | None = None) -> SmokeReport:
    with ExitStack() as stack:
        hops = [Hop("engine", f"{url}/v1")]
        if change is not None:
            gateway = stack.enter_context(peer(forward(url, change)))
            hops.append(Hop("gateway", f"{gateway.url}/v1"))
        return run(hops, ["llava"], timeout=60, listen=silent)


def found(report: SmokeReport, hop: str, kind: Kind) -> set[Finding]:
    return {c.verdict.finding for c in report.checks if (c.hop, c.kind) == (hop, kind)}


def test_a_model_that_sees_is_proven_directly_and_through_a_gateway(models: Path) -> None:
    with localai(models) as url:
        report = examine(url, pass_on)
    assert report.ok, report.document()
    pictures = [c for c in report.checks if c.kind is Kind.PICTURE]
    assert len(pictures) == 6
    # The marker's place costs nothing, so the rise is the encoder's tokens, give or take a newline.
    assert all(abs((c.picture_tokens or 0) - PICTURE_TOKENS) <= 2 for c in pictures)
    assert {c.answer.strip() for c in pictures} == {WITH_PICTURE}
    words = [c for c in report.checks if c.kind in (Kind.TEXT, Kind.CONTROL)]
    assert {c.answer.strip() for c in words} == {WITHOUT_PICTURE}
    # So few tokens could be a marker's text: it was asked, once, and directly.
    assert found(report, "engine", Kind.UNREADABLE) == {Finding.OK}
    assert found(report, "gateway", Kind.UNREADABLE) == set()


def test_the_tokenizers_own_template_sees_as_well(models: Path) -> None:
    write_pair_with_template(models)
    head = CONFIG.partition("roles:")[0]
    rewrite(models / "llava.yaml", head + "template:\n  use_tokenizer_template: true\n")
    with localai(models) as url:
        report = examine(url)
    assert report.ok, report.document()
    assert {c.answer.strip() for c in report.checks if c.kind is Kind.PICTURE} == {WITH_PICTURE}


def write_pair_with_template(models: Path) -> None:
    from tests.world.tiny_model import CHAT_TEMPLATE

    for file in models.glob("*.gguf"):
        file.unlink()
    write_pair(models, chat_template=CHAT_TEMPLATE)


def test_a_missing_projector_is_blindness_of_localai(models: Path) -> None:
    """Every request is answered with 200, and the prompt grows: by the text of the marker."""
    rewrite(models / "llava.yaml", CONFIG.replace("mmproj: mmproj-model-f16.gguf\n", ""))
    with localai(models) as url:
        report = examine(url, pass_on)
    assert not report.ok
    for hop in ("engine", "gateway"):
        assert found(report, hop, Kind.PICTURE) == {Finding.BLIND}
        assert found(report, hop, Kind.TEXT) == {Finding.OK}
    assert {c.answer.strip() for c in report.checks if c.kind is Kind.PICTURE} == {WITHOUT_PICTURE}
    (hint,) = report.hints
    assert "models/llava.yaml" in hint


def test_a_picture_that_localai_refuses_in_silence_is_blindness_of_the_gateway(
    models: Path,
) -> None:
    with localai(models) as url:
        report = examine(url, without_data_prefix)
    assert found(report, "engine", Kind.PICTURE) == {Finding.OK}
    assert found(report, "gateway", Kind.PICTURE) == {Finding.BLIND}
    (hint,) = report.hints
    assert "the gateway loses the picture" in hint


def test_a_promise_that_is_not_kept_fails(models: Path) -> None:
    """The tiny model sees that there is a picture, and nothing in it."""
    promised = {"llava": Capabilities(colour=True, shape=True, admits_no_picture=True)}
    with localai(models) as url:
        report = run(
            [Hop("engine", f"{url}/v1")], ["llava"], timeout=60, listen=silent, require=promised
        )
    assert found(report, "engine", Kind.PICTURE) == {Finding.WRONG}
    assert found(report, "engine", Kind.CONTROL) == {Finding.WRONG, Finding.OK}
    assert found(report, "engine", Kind.TEXT) == {Finding.OK}


@pytest.mark.parametrize("template", ["vicuna", "tokenizer"])
def test_the_canary_keeps_its_promise(tmp_path: Path, template: str) -> None:
    """Pulled and rendered as a user does it, without a hub."""
    models_entry = f"models: [{{source: canary, template: {template}}}]\n"
    (tmp_path / "llmctl.yaml").write_text(models_entry)
    for command in (
        ["models", "pull"],
        ["config", "render", "--set", "gpu=none", "--engine", "docker"],
    ):
        assert llmctl([*command, "-C", str(tmp_path)]) == 0
    with localai(tmp_path / "models") as url:
        report = run(
            [Hop("engine", f"{url}/v1")],
            ["canary"],
            timeout=60,
            listen=silent,
            require={"canary": load_catalog().find("canary").capabilities},
        )
    assert report.ok, report.document()
    reasons = {c.verdict.reason for c in report.checks if c.kind is Kind.CONTROL}
    assert reasons == {"says that there is no picture"}


def test_a_missing_template_fails(models: Path) -> None:
    """LocalAI takes the name of the missing file for the template: the question never arrives."""
    (models / "llava.tmpl").unlink()
    with localai(models) as url:
        report = examine(url)
    assert found(report, "engine", Kind.PICTURE) != {Finding.OK}
    assert not report.ok


def test_a_missing_backend_is_named_with_its_remedy(models: Path) -> None:
    with localai(models, backend=False) as url:
        report = examine(url)
    assert {c.verdict.finding for c in report.checks} == {Finding.ERROR}
    # Only the first failure tells the cause; after it LocalAI says that it waits before a retry.
    assert NO_BACKEND in report.checks[0].verdict.reason
    assert "in cooldown" in report.checks[1].verdict.reason
    assert report.hints == (
        "llmctl up   # puts LocalAI's backend into its volume",
        "llmctl logs   # LocalAI waits after a failed load; the log tells why it failed",
    )


def test_a_model_that_does_not_exist_is_an_error(models: Path) -> None:
    with localai(models) as url:
        hop = Hop("engine", f"{url}/v1")
        report = run([hop], ["moondream"], timeout=60, listen=silent)
    assert {c.verdict.finding for c in report.checks} == {Finding.ERROR}
    assert "HTTP 404" in report.checks[0].verdict.reason
    assert report.hints == ("llmctl up   # the running services do not know moondream",)


def test_a_key_that_localai_wants(models: Path) -> None:
    with localai(models, LOCALAI_API_KEY="sk-local") as url:
        without = run([Hop("engine", f"{url}/v1")], ["llava"], timeout=60, listen=silent)
        hop = Hop("engine", f"{url}/v1", Secret("sk-local"))
        with_key = run([hop], ["llava"], timeout=60, listen=silent)
    assert {c.verdict.finding for c in without.checks} == {Finding.AUTH}
    assert with_key.ok, with_key.document()
