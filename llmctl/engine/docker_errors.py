"""Docker's words into ours: what went wrong, and the next command.

The texts matched here were seen on Docker Engine 20.10 to 28 (the API has no codes for them).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from llmctl.errors import (
    DiskFullError,
    EngineError,
    EngineUnreachableError,
    ImageNotFoundError,
    LlmctlError,
)


@contextlib.contextmanager
def translated(
    doing: str, *, image: str | None = None, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn the SDK's exceptions into LlmctlErrors; those in `passing` go through."""
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        yield
    except passing:
        raise
    except ImageNotFound as error:
        raise _image_missing(image or doing, str(error.explanation or error)) from error
    except APIError as error:
        raise explain(doing, str(error.explanation or error), image) from error
    except RequestException as error:
        raise unreachable(error) from error
    except DockerException as error:
        raise explain(doing, str(error), image) from error


def unreachable(error: Exception) -> EngineUnreachableError:
    """No engine answers: not running, not permitted, or not where DOCKER_HOST points."""
    text = str(error)
    where = os.environ.get("DOCKER_HOST", "the default socket")
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnreachableError(
            f"no permission to use Docker at {where}",
            hint='sudo usermod -aG docker "$USER" && newgrp docker',
            details=text,
        )
    if "DOCKER_HOST" in os.environ:
        hint = "check DOCKER_HOST, or unset it to use the default socket"
    else:
        hint = (
            "sudo systemctl start docker   # or start Docker Desktop\n"
            "not installed yet? Debian and Ubuntu: sudo apt-get install docker.io"
        )
    return EngineUnreachableError(
        f"no Docker Engine answers at {where}", hint=hint, details=_last_cause(text)
    )


def explain(doing: str, words: str, image: str | None = None) -> LlmctlError:
    """The error for what the engine said; its own words are kept as evidence."""
    for pattern, make in _KNOWN:
        found = re.search(pattern, words, re.IGNORECASE)
        if found:
            return make(doing, words, found, image)
    return EngineError(f"could not {doing}", details=words)


def _image_missing(image: str, words: str) -> ImageNotFoundError:
    return ImageNotFoundError(
        f"image not found: {image}",
        hint="check `localai.image` and `litellm.image` in llmctl.yaml (llmctl config show --origin);"
        "\na private image needs `docker login` first",
        details=words,
    )


def _no_image(_doing: str, words: str, _match: re.Match[str], image: str | None) -> LlmctlError:
    return _image_missing(image or "?", words)


def _no_network(doing: str, words: str, _match: re.Match[str], image: str | None) -> LlmctlError:
    return EngineError(
        f"could not {doing}: the registry of {image or 'the image'} cannot be reached",
        hint="check the network and the proxy of the Docker daemon; on a machine without network load"
        "\nthe image first: docker load -i image.tar",
        details=words,
    )


def _rate_limited(doing: str, words: str, _match: re.Match[str], _image: str | None) -> LlmctlError:
    return EngineError(
        f"could not {doing}: the registry's pull limit is reached",
        hint="docker login   # a free account has a higher limit; or wait an hour",
        details=words,
    )


def _no_gpu_driver(
    _doing: str, words: str, _match: re.Match[str], _image: str | None
) -> LlmctlError:
    return EngineError(
        "the Docker Engine cannot pass an NVIDIA GPU: it has no NVIDIA device driver",
        hint="install nvidia-container-toolkit, then:\n"
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker\n"
        "or run without it: llmctl up --gpu none",
        details=words,
    )


def _gpu_refused(_doing: str, words: str, _match: re.Match[str], _image: str | None) -> LlmctlError:
    return EngineError(
        "the NVIDIA driver refused the GPU that was asked for",
        hint="nvidia-smi -L   # lists the GPUs; set gpu_devices to one of them, or leave it empty\n"
        "or run without it: llmctl up --gpu none",
        details=words,
    )


def _port_taken(_doing: str, words: str, match: re.Match[str], _image: str | None) -> LlmctlError:
    return EngineError(
        f"port {match[1]} is taken",
        hint=f"docker ps --filter publish={match[1].rsplit(':', 1)[-1]}   # who has it?\n"
        "or choose another: gateway.port or localai.port in llmctl.yaml",
        details=words,
    )


def _disk_full(doing: str, words: str, _match: re.Match[str], _image: str | None) -> LlmctlError:
    return DiskFullError(
        f"could not {doing}: the disk of the Docker Engine is full",
        hint="docker system df   # then: docker image prune",
        details=words,
    )


def _mount_missing(
    _doing: str, words: str, match: re.Match[str], _image: str | None
) -> LlmctlError:
    return EngineError(
        f"the engine does not see {match[1]} on its host",
        hint="a remote engine or Docker Desktop must share that directory with its containers",
        details=words,
    )


def _no_device(_doing: str, words: str, match: re.Match[str], _image: str | None) -> LlmctlError:
    return EngineError(
        f"the engine's host has no device {match[1]}",
        hint="ls -l /dev/kfd /dev/dri   # is the GPU's kernel driver loaded?\n"
        "or run without it: llmctl up --gpu none",
        details=words,
    )


def _name_taken(_doing: str, words: str, match: re.Match[str], _image: str | None) -> LlmctlError:
    return EngineError(
        f"a container named {match[1]} exists and is not llmctl's",
        hint=f"set another `name:` in llmctl.yaml, or remove it: docker rm {match[1]}",
        details=words,
    )


_KNOWN = (
    (r"no space left on device", _disk_full),
    (r"could not select device driver", _no_gpu_driver),
    (r"nvidia-container-cli: requirement error|unknown device|nvidia-container-cli", _gpu_refused),
    (r"unresolvable CDI devices|failed to inject CDI", _gpu_refused),
    (
        r"(?:Bind for|exposing port TCP|listen tcp4?) ([\d.:]+\d).*(?:already allocated|in use)",
        _port_taken,
    ),
    (r"listen tcp4? ([\d.:]+\d)", _port_taken),
    (r"bind source path does not exist: (\S+)", _mount_missing),
    (r"error gathering device information while adding custom device \"?([^\s\"]+)\"?", _no_device),
    (r"container name \"?/?([\w.-]+)\"? is already in use", _name_taken),
    (r"toomanyrequests|pull rate limit", _rate_limited),
    (
        r"manifest unknown|manifest for .* not found|repository does not exist|pull access denied",
        _no_image,
    ),
    (r"no such image", _no_image),
    (
        r"no such host|dial tcp|connection refused|i/o timeout|network is unreachable|TLS handshake",
        _no_network,
    ),
)


def _last_cause(text: str) -> str:
    """The innermost cause in the SDK's nested text."""
    return text if len(text) < 300 else "..." + text[-300:]  # noqa: PLR2004
