"""The engine's words, as seen on real ones, and what becomes of them."""

from __future__ import annotations

import pytest

from llmctl.engine.docker_errors import explain, unreachable
from llmctl.errors import DiskFullError, EngineError, ImageNotFoundError, LlmctlError

SEEN: list[tuple[str, type[LlmctlError], str, str]] = [
    (
        'could not select device driver "" with capabilities: [[gpu]]',
        EngineError,
        "cannot pass an NVIDIA GPU",
        "nvidia-container-toolkit",
    ),
    (
        (
            "error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: device error: "
            "7: unknown device: unknown"
        ),
        EngineError,
        "refused the GPU",
        "nvidia-smi -L",
    ),
    (
        (
            "driver failed programming external connectivity: Bind for 127.0.0.1:18081 failed: port is "
            "already allocated"
        ),
        EngineError,
        "port 127.0.0.1:18081 is taken",
        "docker ps --filter publish=18081",
    ),
    (
        "Error starting userland proxy: listen tcp4 127.0.0.1:28000: bind: address already in use",
        EngineError,
        "port 127.0.0.1:28000 is taken",
        "gateway.port",
    ),
    (
        "failed to register layer: write /x: no space left on device",
        DiskFullError,
        "the disk of the Docker Engine is full",
        "docker system df",
    ),
    (
        "manifest for localai/localai:v99 not found: manifest unknown: manifest unknown",
        ImageNotFoundError,
        "image not found: localai/localai:v99",
        "localai.image",
    ),
    (
        "pull access denied for nope/nope, repository does not exist or may require 'docker login'",
        ImageNotFoundError,
        "image not found",
        "docker login",
    ),
    (
        "toomanyrequests: You have reached your pull rate limit.",
        EngineError,
        "pull limit is reached",
        "docker login",
    ),
    (
        'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
        EngineError,
        "cannot be reached",
        "docker load",
    ),
    (
        'Conflict. The container name "/llmctl-localai" is already in use by container "abc".',
        EngineError,
        "a container named llmctl-localai exists",
        "docker rm llmctl-localai",
    ),
    (
        'invalid mount config for type "bind": bind source path does not exist: /srv/models',
        EngineError,
        "does not see /srv/models",
        "share that directory",
    ),
    (
        (
            'error gathering device information while adding custom device "/dev/kfd": no such file or '
            "directory"
        ),
        EngineError,
        "no device /dev/kfd",
        "--gpu none",
    ),
]


@pytest.mark.parametrize(("words", "kind", "message", "hint"), SEEN)
def test_known_words(words: str, kind: type[LlmctlError], message: str, hint: str) -> None:
    error = explain("start it", words, "localai/localai:v99")
    assert type(error) is kind
    assert message in error.message
    assert hint in (error.hint or "")
    assert error.details == words


def test_unknown_words_are_shown_as_they_are() -> None:
    error = explain("start llmctl-localai", "something new")
    assert error.message == "could not start llmctl-localai"
    assert error.details == "something new"


def test_no_permission_is_not_the_same_as_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    denied = unreachable(
        Exception("('Connection aborted.', PermissionError(13, 'Permission denied'))")
    )
    assert "no permission" in denied.message
    assert "usermod -aG docker" in (denied.hint or "")
    absent = unreachable(Exception("FileNotFoundError(2, 'No such file or directory')"))
    assert "no Docker Engine answers" in absent.message
    assert "systemctl start docker" in (absent.hint or "")
