"""`models inspect`: what a model is and whether it will work, before it is here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from llmctl import files
from llmctl.core.artifact import Artifact, ModelFile, is_projector_name, shards
from llmctl.core.gguf import GgufHeader
from llmctl.core.language import LanguageFacts
from llmctl.core.projector import ProjectorFacts, is_projector, projector_facts
from llmctl.core.stack import ModelSpec
from llmctl.core.verdict import Finding, Formats, in_order, judge
from llmctl.errors import ConfigError
from llmctl.hub.base import Hub
from llmctl.ops.models.examining import Examined, examine, examined_for, needed_bytes
from llmctl.ops.models.headers import local_header
from llmctl.ops.models.sources import find
from llmctl.paths import StackPaths


@dataclass(frozen=True)
class Inspection:
    """What is known of a model before the download.

    Attributes:
        artifact: Its files with their sizes and hashes.
        language: The language model, None when its header could not be read.
        projector: The projector, likewise, or None without one.
        findings: What speaks against it and what has to be known, the gravest first.
        works: Whether it can work.
        needed: Bytes that a pull would still write.
        free: Bytes free where they would go.
        examined: The headers, for the memory plan.
    """

    artifact: Artifact
    language: LanguageFacts | None
    projector: ProjectorFacts | None
    findings: tuple[Finding, ...]
    works: bool
    needed: int
    free: int
    examined: Examined


def inspect(paths: StackPaths, spec: ModelSpec, hub: Hub, formats: Formats) -> Inspection:
    """Read the headers of a model of the stack, of the catalogue or of the hub, and judge them.

    Raises:
        ConfigError: the name, or what the repository holds, leads to no model.
        HubError: the hub does not answer.
    """
    examined = examined_for(paths, spec, find(paths, spec, hub, blind=True), hub, formats)
    return _inspection(
        examined, needed_bytes(paths, examined.artifact), files.free_bytes(paths.models)
    )


def inspect_files(model: Path, projector: Path | None, formats: Formats) -> Inspection:
    """Read the headers of files on this machine and judge them.

    Args:
        model: A GGUF file; of a split model its first part. A projector alone is fine, too.
        projector: The projector that belongs to it; by default the one mmproj file beside it.
        formats: What the engine takes.

    Raises:
        ConfigError: a file does not exist.
    """
    if projector is None and not is_projector_name(model.name):
        beside = [p for p in model.parent.glob("*.gguf") if is_projector_name(p.name)]
        projector = beside[0] if len(beside) == 1 else None
    parts = tuple(Path(part) for part in shards(str(model)))
    for place in (*parts, *((projector,) if projector else ())):
        if not place.is_file():
            raise ConfigError(f"{place}: does not exist", hint=f"ls -l {place.parent}")
    artifact = Artifact(
        name=model.stem,
        source=f"file:{model}",
        repo=None,
        commit=None,
        licence=None,
        template="tokenizer",
        model=tuple(_local(part) for part in parts),
        projector=_local(projector) if projector else None,
    )
    headers: dict[str, GgufHeader] = {}

    def header_of(_artifact: Artifact, file: ModelFile) -> GgufHeader:
        path = file.original.path
        headers[path] = headers.get(path) or local_header(Path(path))
        return headers[path]

    examined = examine((artifact,), header_of, formats, vicuna=False)
    first = headers.get(artifact.model[0].path)
    if projector is None and first is not None and is_projector(first):
        # Somebody asks about a projector alone.
        eyes = projector_facts(first)
        examined = dataclasses.replace(
            examined, projector=eyes, findings=judge(None, eyes, formats)
        )
    return _inspection(examined, 0, files.free_bytes(model.absolute().parent))


def is_file(source: str) -> bool:
    """Whether what a user names is a file on this machine and not a model's name or reference."""
    return source.lower().endswith(".gguf") and not source.startswith("hf://")


def _local(place: Path) -> ModelFile:
    return ModelFile(str(place), place.stat().st_size)


def _inspection(examined: Examined, needed: int, free: int) -> Inspection:
    return Inspection(
        examined.artifact,
        examined.language,
        examined.projector,
        in_order(examined.findings),
        examined.works,
        needed,
        free,
        examined,
    )
