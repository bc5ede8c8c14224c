"""LocalAI's environment variables (core/cli/run.go). ``LOCALAI_X`` wins over its alias ``X``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Settings:
    """Everything that a run of the stand-in depends on. Times are in seconds."""

    host: str
    port: int
    models: Path
    backends: Path
    api_keys: tuple[str, ...]
    load_to_memory: tuple[str, ...]
    external_backends: tuple[str, ...]
    upload_limit_mb: int
    threads: int | None
    cooldown_s: float
    backend_logging: bool
    capability: str
    startup_s: float
    install_s: float
    install_error: str
    trusted_pictures: frozenset[str]
    max_threads: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read LocalAI's and the stand-in's variables; ``ValueError`` for one that does not parse."""

        def value(name: str, default: str) -> str:
            return environment.get(f"LOCALAI_{name}") or environment.get(name) or default

        def words(name: str) -> tuple[str, ...]:
            return tuple(word for word in value(name, "").split(",") if word)

        host, _, port = value("ADDRESS", ":8080").rpartition(":")
        threads = value("THREADS", "")
        return cls(
            host=host or "0.0.0.0",
            port=int(port),
            models=Path(value("MODELS_PATH", "/models")),
            backends=Path(value("BACKENDS_PATH", "/backends")),
            api_keys=words("API_KEY"),
            load_to_memory=words("LOAD_TO_MEMORY"),
            external_backends=words("EXTERNAL_BACKENDS"),
            upload_limit_mb=int(value("UPLOAD_LIMIT", "15")),
            threads=int(threads) if threads else None,
            cooldown_s=go_duration(value("MODEL_LOAD_FAILURE_COOLDOWN", "10s")),
            backend_logging=value("ENABLE_BACKEND_LOGGING", "false") == "true",
            capability=value("FORCE_META_BACKEND_CAPABILITY", "") or _baked_capability(),
            startup_s=float(environment.get("STANDIN_STARTUP_SECONDS", "0.5")),
            install_s=float(environment.get("STANDIN_INSTALL_SECONDS", "0")),
            install_error=environment.get("STANDIN_INSTALL_ERROR", ""),
            trusted_pictures=frozenset(
                environment.get("STANDIN_TRUSTED_PICTURE_URLS", "").split(",")
            ),
            max_threads=int(environment.get("STANDIN_MAX_THREADS", "1")),
        )


def go_duration(text: str) -> float:
    """Seconds of a Go duration (``10s``, ``1m30s``, ``0``); ``ValueError`` for anything else."""
    if text == "0":
        return 0.0
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        raise ValueError(f"not a Go duration: {text!r}")
    return sum(
        float(count) * _UNIT_S[unit]
        for count, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    )


def _baked_capability() -> str:
    """Each LocalAI image carries the hardware it was built for; without it, the CPU."""
    path = Path("/run/localai/capability")
    return path.read_text().strip() if path.is_file() else "default"
