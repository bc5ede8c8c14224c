"""Headers of real models (tests/golden/memory) as files that look whole."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

HEADERS = Path(__file__).parents[1] / "golden" / "memory" / "headers"


def sparse(name: str, target: Path) -> Path:
    """The header of `name` at `target`, grown to the model's size without taking the disk's room."""
    size = json.loads((HEADERS / "sizes.json").read_text(encoding="utf-8"))[name]["file_bytes"]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(lzma.decompress((HEADERS / f"{name}.head.xz").read_bytes()))
        file.truncate(size)
    return target
