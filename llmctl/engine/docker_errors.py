"""Docker's words into ours: what went wrong, and the next command.

The texts matched here were seen on Docker Engine 20.10 to 28 (the API has no codes for them).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

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
            "not installed yet? Debian and Ubuntu: sudo apt-get install docker.io\n"
            "no Docker at all: pip install 'llmctl[local]', then: llmctl up --engine process"
        )
    return EngineUnreachableError(
        f"no Docker Engine answers at {where}", hint=hint, details=_last_cause(text)
    )


def explain(doing: str, words: str, image: str | None = None) -> LlmctlError:
    """The error for what the engine said; its own words are kept as evidence.

    Args:
        doing: What was tried, as the end of "could not ...".
        words: What the engine said.
        image: The image it was about.
    """
    for known in _KNOWN:
        found = re.search(known.pattern, words, re.IGNORECASE)
        if found:
            named = found[1] if found.re.groups else ""
            facts = {"doing": doing, "image": image or "the image", "named": named}
            facts["port"] = named.rpartition(":")[2]
            return known.kind(
                known.message.format(**facts), hint=known.hint.format(**facts), details=words
            )
    return EngineError(f"could not {doing}", details=words)


def _image_missing(image: str, words: str) -> LlmctlError:
    return ImageNotFoundError(f"image not found: {image}", hint=_IMAGE_HINT, details=words)


@dataclass(frozen=True)
class _Known:
    """Words of the engine, and the error they become.

    Attributes:
        pattern: Searched in the words; group 1 is `{named}` (and `{port}`, what follows its colon).
        kind: Class of the error.
        message: Format text over doing, image, named, port.
        hint: The same for the next command.
    """

    pattern: str
    kind: type[LlmctlError]
    message: str
    hint: str


_IMAGE_HINT = (
    "check `localai.image` and `litellm.image` in llmctl.yaml (llmctl config show --origin);\n"
    "a private image needs `docker login` first"
)
_NO_GPU = "or run without it: llmctl up --gpu none"
_PORT_HINT = (
    "docker ps --filter publish={port}   # who has it?\n"
    "or choose another: gateway.port or localai.port in llmctl.yaml"
)
# In this order: a text may fit several.
_KNOWN = (
    _Known(
        r"no space left on device",
        DiskFullError,
        "could not {doing}: the disk of the Docker Engine is full",
        "docker system df   # then: docker image prune",
    ),
    _Known(
        r"could not select device driver",
        EngineError,
        "the Docker Engine cannot pass an NVIDIA GPU: it has no NVIDIA device driver",
        "install nvidia-container-toolkit, then:\n"
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker\n"
        + _NO_GPU,
    ),
    _Known(
        r"unknown device|nvidia-container-cli|unresolvable CDI devices|failed to inject CDI",
        EngineError,
        "the NVIDIA driver refused the GPU that was asked for",
        "nvidia-smi -L   # lists the GPUs; set gpu_devices to one of them, or leave it empty\n"
        + _NO_GPU,
    ),
    _Known(
        r"(?:Bind for|exposing port TCP) ([\d.:]+\d).*already allocated",
        EngineError,
        "port {named} is taken",
        _PORT_HINT,
    ),
    _Known(r"listen tcp4? ([\d.:]+\d)", EngineError, "port {named} is taken", _PORT_HINT),
    _Known(
        r"bind source path does not exist: (\S+)",
        EngineError,
        "the engine does not see {named} on its host",
        "a remote engine or Docker Desktop must share that directory with its containers",
    ),
    _Known(
        r"error gathering device information while adding custom device \"?([^\s\"]+)\"?",
        EngineError,
        "the engine's host has no device {named}",
        "ls -l /dev/kfd /dev/dri   # is the GPU's kernel driver loaded?\n" + _NO_GPU,
    ),
    _Known(
        r"container name \"?/?([\w.-]+)\"? is already in use",
        EngineError,
        "a container named {named} exists and is not llmctl's",
        "set another `name:` in llmctl.yaml, or remove it: docker rm {named}",
    ),
    _Known(
        r"toomanyrequests|pull rate limit",
        EngineError,
        "could not {doing}: the registry's pull limit is reached",
        "docker login   # a free account has a higher limit; or wait an hour",
    ),
    _Known(
        r"manifest unknown|manifest for .* not found|repository does not exist|pull access denied"
        r"|no such image",
        ImageNotFoundError,
        "image not found: {image}",
        _IMAGE_HINT,
    ),
    _Known(
        r"no such host|dial tcp|connection refused|i/o timeout|network is unreachable|TLS handshake",
        EngineError,
        "could not {doing}: the registry of {image} cannot be reached",
        "check the network and the proxy of the Docker daemon; on a machine without network load\n"
        "the image first: docker load -i image.tar",
    ),
)


def _last_cause(text: str) -> str:
    """The innermost cause in the SDK's nested text."""
    return text if len(text) < 300 else "..." + text[-300:]  # noqa: PLR2004
