"""The catalogue: vision models known by a short name, as data."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from llmctl.core.artifact import Artifact, ModelFile, is_safe_path
from llmctl.core.capabilities import NOTHING_PROMISED, Capabilities, parse_capabilities
from llmctl.core.reference import is_repo
from llmctl.errors import ConfigError

TEMPLATES = ("tokenizer", "vicuna")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class CatalogEntry:
    """One known model.

    Attributes:
        name: The short name; it never changes meaning.
        title: The model in a few words.
        licence: The licence's short name, None when not known here.
        repo: `organisation/repository`, None when the files come with llmctl.
        bundled: The directory inside llmctl's package that holds the files, None for a repository.
        revision: Branch, tag or commit, None for main.
        template: "tokenizer" or "vicuna".
        model: The language model's files.
        projector: The vision projector.
        capabilities: What a smoke test may demand of it.
    """

    name: str
    title: str
    licence: str | None
    repo: str | None
    bundled: str | None
    revision: str | None
    template: str
    model: tuple[ModelFile, ...]
    projector: ModelFile
    capabilities: Capabilities = NOTHING_PROMISED

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Every file, the one to load first."""
        return (*self.model, self.projector)

    def artifact(self, name: str) -> Artifact:
        """The files under a model name; the commit is not known before the hub is asked."""
        return Artifact(
            name=name,
            source=self.name,
            repo=self.repo,
            commit=None,
            licence=self.licence,
            template=self.template,
            model=self.model,
            projector=self.projector,
        )


@dataclass(frozen=True)
class Catalog:
    """All known models, in the order of the file."""

    entries: tuple[CatalogEntry, ...]

    def get(self, name: str) -> CatalogEntry | None:
        """The entry of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def find(self, name: str) -> CatalogEntry:
        """The entry of that name; ConfigError with the nearest names when there is none."""
        if entry := self.get(name):
            return entry
        near = self.nearest(name)
        mean = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f'"{name}" is not in the catalogue{mean}',
            hint="llmctl models list   # or take any repository: hf://organisation/repository",
        )

    def nearest(self, name: str) -> list[str]:
        """Up to three names that look like `name` or begin with it."""
        names = [entry.name for entry in self.entries]
        word = name.lower()
        begin = [known for known in names if known.startswith(word)] if word else []
        return list(dict.fromkeys([*begin, *difflib.get_close_matches(word, names, n=3)]))[:3]


def parse_catalog(document: Any) -> Catalog:
    """Read the catalogue that llmctl brings; a damaged one is a bug of ours, a ValueError."""
    entries = tuple(_entry(name, fields) for name, fields in document.items())
    owners: dict[str, str] = {}
    for entry in entries:
        for file in entry.files:
            if owners.setdefault(file.path, entry.name) != entry.name:
                raise ValueError(
                    f"{entry.name}: {file.path} belongs to {owners[file.path]} already"
                )
    return Catalog(entries)


def _entry(name: str, fields: dict[str, Any]) -> CatalogEntry:
    directory = fields.get("directory", name)
    entry = CatalogEntry(
        name=name,
        title=fields["title"],
        licence=fields["licence"],
        repo=fields.get("repo"),
        bundled=fields.get("bundled"),
        revision=fields.get("revision"),
        template=fields.get("template", "tokenizer"),
        model=tuple(_file(directory, file) for file in fields["model"]),
        projector=_file(directory, fields["projector"]),
        capabilities=parse_capabilities(fields.get("capabilities", {})),
    )
    valid = _NAME.fullmatch(name) and _has_one_origin(entry) and entry.template in TEMPLATES
    if not valid or not entry.model:
        raise ValueError(f"catalogue entry {name!r} is not valid")
    return entry


def _has_one_origin(entry: CatalogEntry) -> bool:
    if entry.bundled is not None:
        return entry.repo is None and bool(_NAME.fullmatch(entry.bundled))
    return entry.repo is not None and is_repo(entry.repo)


def _file(directory: str, fields: dict[str, Any]) -> ModelFile:
    remote = fields["file"]
    name = remote.rsplit("/", 1)[-1]
    path = f"{directory}/{name}" if directory else name
    sha256 = fields["sha256"]
    if not is_safe_path(path) or not is_safe_path(remote):
        raise ValueError(f"catalogue file {remote!r} is not a safe path")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"catalogue file {remote!r}: {sha256!r} is not a SHA-256")
    return ModelFile(path=path, size=fields["size"], sha256=sha256, remote=remote)
