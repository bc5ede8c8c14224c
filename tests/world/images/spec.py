"""What goes into each image. A change here, or in a file named here, changes the image's hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

TINY = "llmctl-test/tiny:1"
LOCALAI = "llmctl-test/localai:1"
LITELLM = "llmctl-test/litellm:1.106.2"

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]

# Debian packages for a Python without apt, dpkg or maintainer scripts (they are unpacked, never
# installed).
_PYTHON_DEBS = [
    "busybox-static",
    "base-files",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libgomp1",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libexpat1",
    "libffi8",
    "libssl3",
    "libcrypt1",
    "libuuid1",
    "libsqlite3-0",
    "libtinfo6",
    "libncursesw6",
    "libreadline8",
    "libnsl2",
    "libtirpc3",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libcom-err2",
    "libkeyutils1",
    "libdb5.3",
    "media-types",
    "python3.11-minimal",
    "python3.11",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
]
_HEALTHCHECK_TIMES = "--start-period=60m --interval=1m --timeout=10s --retries=3"


@dataclass(frozen=True)
class Image:
    """One image: Debian packages, Python packages, files of this checkout, Dockerfile instructions."""

    tag: str
    base: str  # where Debian packages cannot be had
    debs: tuple[str, ...]
    requirements: str | None
    files: tuple[tuple[str, str], ...]  # (path in the checkout, path in the image)
    changes: tuple[str, ...]

    def digest(self) -> str:
        """Hash of all inputs, the builder's own source included."""
        content = hashlib.sha256(json.dumps(asdict(self)).encode())
        sources = [CHECKOUT / source for source, _ in self.files] + [HERE / "build.py"]
        if self.requirements:
            sources.append(HERE / self.requirements)
        for source in sources:
            content.update(source.read_bytes())
        return content.hexdigest()


def _stand_in() -> tuple[tuple[str, str], ...]:
    package = sorted((HERE.parent / "localai").glob("*.py"))
    sources = [CHECKOUT / "tests/__init__.py", CHECKOUT / "tests/world/__init__.py", *package]
    relative = [str(path.relative_to(CHECKOUT)) for path in sources]
    scripts = ("entrypoint.sh", "local-ai", "healthcheck.sh")
    return (
        *((name, f"/opt/stand-in/{name}") for name in relative),
        *((f"tests/world/images/localai/{name}", f"/{name}") for name in scripts),
    )


IMAGES = {
    "tiny": Image(
        tag=TINY,
        base="busybox:1.36",
        debs=("busybox-static",),
        requirements=None,
        files=(),
        changes=('CMD ["sh"]',),
    ),
    "localai": Image(
        tag=LOCALAI,
        base="python:3.11-slim",
        debs=tuple(_PYTHON_DEBS),
        requirements="localai/requirements.txt",
        files=_stand_in(),
        # The shape of LocalAI's own image: Dockerfile, entrypoint.sh, scripts/build/healthcheck.sh
        # in its repository.
        changes=(
            "ENV PYTHONPATH=/opt/site:/opt/stand-in PYTHONDONTWRITEBYTECODE=1",
            "ENV NVIDIA_VISIBLE_DEVICES=all",
            "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            'ENV NVIDIA_REQUIRE_CUDA="cuda>=12.0"',
            "WORKDIR /",
            "EXPOSE 8080",
            'VOLUME ["/models", "/backends", "/configuration", "/data"]',
            f'HEALTHCHECK {_HEALTHCHECK_TIMES} CMD ["/healthcheck.sh"]',
            'ENTRYPOINT ["/entrypoint.sh"]',
        ),
    ),
    "litellm": Image(
        tag=LITELLM,
        base="python:3.11-slim",
        debs=tuple(_PYTHON_DEBS),
        requirements="litellm/requirements.txt",
        files=(
            ("tests/world/images/litellm/litellm", "/usr/local/bin/litellm"),
            (
                "tests/world/images/litellm/prod_entrypoint.sh",
                "/app/docker/prod_entrypoint.sh",
            ),
        ),
        changes=(
            "ENV PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1",
            "WORKDIR /app",
            "EXPOSE 4000",
            'ENTRYPOINT ["/app/docker/prod_entrypoint.sh"]',
            'CMD ["--port", "4000"]',
        ),
    ),
}
