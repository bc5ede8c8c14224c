"""What runs now, as an engine reports it, and the labels that carry our values through it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl.core.codec import canonical
from llmctl.core.deployment import ServiceSpec

LABEL_STACK = "llmctl.stack"
LABEL_SERVICE = "llmctl.service"
LABEL_DIGEST = "llmctl.digest"
LABEL_SPEC = "llmctl.spec"
LABEL_DIRECTORY = "llmctl.directory"


@dataclass(frozen=True)
class ObservedService:
    """One container of ours.

    Attributes:
        service: From its label.
        container: Its name in the engine.
        state: "created", "running", "paused", "restarting", "exited" or "dead".
        digest: Digest of the specification it was made from.
        spec: That specification as JSON text ("" when its label was damaged).
        directory: Stack directory it was made from.
        image_id: Id of the image it runs.
        created: When it was made, ISO 8601.
        started: When it last started, ISO 8601; None when it never did.
        exit_code: Of its last run; None while running.
        health: "starting", "healthy", "unhealthy", or None without a healthcheck.
    """

    service: str
    container: str
    state: str
    digest: str
    spec: str
    directory: str
    image_id: str
    created: str
    started: str | None = None
    exit_code: int | None = None
    health: str | None = None


@dataclass(frozen=True)
class Observed:
    """The present state of one stack.

    Attributes:
        services: Its containers, leftovers included.
        networks: Names of its networks.
        volumes: Names of its volumes.
        images: Image reference -> id, for the references that are here.
        files: Path relative to the stack directory -> SHA-256, for files that exist.
        models: (model name, path) of weights that lie complete on disk.
    """

    services: tuple[ObservedService, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    models: frozenset[tuple[str, str]] = frozenset()


def stack_labels(stack: str) -> dict[str, str]:
    """Labels of a network or volume."""
    return {LABEL_STACK: stack}


def service_labels(stack: str, directory: str, spec: ServiceSpec) -> dict[str, str]:
    """Labels of a container; they hold no secret because a specification holds none."""
    return {
        **stack_labels(stack),
        LABEL_SERVICE: spec.service,
        LABEL_DIGEST: spec.digest,
        LABEL_SPEC: canonical(spec),
        LABEL_DIRECTORY: directory,
    }


def spec_fields(text: str) -> dict[str, Any]:
    """The specification in a label as JSON values, {} when it cannot be read."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
