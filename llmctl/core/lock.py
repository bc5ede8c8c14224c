"""`llmctl.lock`: exactly which files were pulled, so that they can be had again and be checked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from llmctl.core.artifact import Artifact, Fact, ModelFile, Repair, is_safe_path
from llmctl.core.catalog import TEMPLATES
from llmctl.core.reference import is_repo
from llmctl.core.settings import MODEL_NAME, describe
from llmctl.errors import ConfigError

VERSION = 2  # 1 had neither header nor repair
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Lock:
    """What was pulled, by model name; every file has its size and SHA-256."""

    models: dict[str, Artifact] = field(default_factory=dict)

    def with_model(self, artifact: Artifact) -> Lock:
        """The lock with this model added or replaced."""
        return Lock({**self.models, artifact.name: artifact})

    def without(self, name: str) -> Lock:
        """The lock without this model."""
        return Lock({key: value for key, value in self.models.items() if key != name})

    def owners(self, path: str) -> tuple[str, ...]:
        """The models that a file belongs to."""
        return tuple(
            name
            for name, artifact in sorted(self.models.items())
            if any(path in {file.path, file.original.path} for file in artifact.files)
        )


def format_lock(lock: Lock) -> str:
    """The lock as JSON text: models by name, keys in a fixed order, so that diffs are small."""
    models = {name: _model(lock.models[name]) for name in sorted(lock.models)}
    document = {"version": VERSION, "models": models}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def parse_lock(text: str | None, file: str) -> Lock:
    """Read a lock; None (no such file) is an empty one.

    Args:
        text: The file's content.
        file: Its name in messages.

    Raises:
        ConfigError: damaged, or written by a newer llmctl; names the file and the path in it.
    """
    if text is None:
        return Lock()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}", hint=_hint(file)) from error
    reader = _Reader(file)
    top = reader.mapping(document, "", ("version", "models"))
    version = top["version"]
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(
            f"{file}: version {version} was written by a newer llmctl; this one reads {VERSION}",
            hint="update llmctl",
        )
    if version not in {1, VERSION} or isinstance(version, bool):
        raise reader.wrong("version", str(VERSION), version)
    models = reader.mapping(top["models"], "models", None)
    return Lock({name: reader.artifact(name, fields) for name, fields in models.items()})


def _hint(file: str) -> str:
    return f"restore it from version control, or rm {file} and run `llmctl models pull`"


def _model(artifact: Artifact) -> dict[str, Any]:
    return {
        "source": artifact.source,
        "repo": artifact.repo,
        "commit": artifact.commit,
        "licence": artifact.licence,
        "template": artifact.template,
        "model": [_file(file) for file in artifact.model],
        "projector": _file(artifact.projector) if artifact.projector else None,
    }


def _file(file: ModelFile) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "path": file.path,
        "remote": file.remote,
        "size": file.size,
        "sha256": file.sha256,
    }
    if file.repair:
        fields["repair"] = vars(file.repair)
    if file.header:
        fields["header"] = dict(file.header)
    return fields


class _Reader:
    """Checks a document piece by piece; every complaint names the path."""

    def __init__(self, file: str) -> None:
        self.file = file

    def wrong(self, path: str, expected: str, value: Any) -> ConfigError:
        where = f"{self.file}: {path}" if path else self.file
        return ConfigError(
            f"{where}: expected {expected}, got {describe(value)}", hint=_hint(self.file)
        )

    def mapping(
        self,
        value: Any,
        path: str,
        keys: tuple[str, ...] | None,
        optional: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """A mapping with these keys (None: any); a key we drop would be lost on rewrite."""
        if not isinstance(value, dict):
            raise self.wrong(path, "a mapping", value)
        for key in keys or ():
            if key not in value:
                raise self.wrong(f"{path}.{key}".lstrip("."), "a value", None)
        for key in value:
            if keys is not None and key not in (*keys, *optional):
                raise self.wrong(f"{path}.{key}".lstrip("."), "no such key", value[key])
        return value

    def text(self, value: Any, path: str, pattern: re.Pattern[str] | None = None) -> str:
        fits = isinstance(value, str) and value.isprintable()
        if not fits or (pattern and not pattern.fullmatch(value)):
            raise self.wrong(path, f"a text like {pattern.pattern}" if pattern else "a text", value)
        return str(value)

    def optional(self, value: Any, path: str, pattern: re.Pattern[str] | None = None) -> str | None:
        return None if value is None else self.text(value, path, pattern)

    def artifact(self, name: str, value: Any) -> Artifact:
        path = f"models.{name}"
        if not re.fullmatch(MODEL_NAME.pattern, name):
            raise self.wrong("models", MODEL_NAME.words, name)
        fields = self.mapping(
            value, path, ("source", "repo", "commit", "licence", "template", "model", "projector")
        )
        repo = self.optional(fields["repo"], f"{path}.repo")
        if repo is not None and not is_repo(repo):
            raise self.wrong(f"{path}.repo", "organisation/repository", repo)
        if fields["template"] not in TEMPLATES:
            raise self.wrong(f"{path}.template", " or ".join(TEMPLATES), fields["template"])
        if not isinstance(fields["model"], list) or not fields["model"]:
            raise self.wrong(f"{path}.model", "a list of files", fields["model"])
        projector = fields["projector"]
        return Artifact(
            name=name,
            source=self.text(fields["source"], f"{path}.source"),
            repo=repo,
            commit=self.optional(fields["commit"], f"{path}.commit", _COMMIT),
            licence=self.optional(fields["licence"], f"{path}.licence"),
            template=fields["template"],
            model=tuple(
                self.model_file(file, f"{path}.model.{i}") for i, file in enumerate(fields["model"])
            ),
            projector=self.model_file(projector, f"{path}.projector") if projector else None,
        )

    def model_file(self, value: Any, path: str) -> ModelFile:
        fields = self.mapping(
            value, path, ("path", "remote", "size", "sha256"), ("repair", "header")
        )
        repair = fields.get("repair")
        header = fields.get("header", {})
        return ModelFile(
            path=self.place(fields["path"], f"{path}.path"),
            size=self.size(fields["size"], f"{path}.size"),
            sha256=self.text(fields["sha256"], f"{path}.sha256", _SHA256),
            remote=None
            if fields["remote"] is None
            else self.place(fields["remote"], f"{path}.remote"),
            repair=None if repair is None else self.repair(repair, f"{path}.repair"),
            header=self.header(header, f"{path}.header"),
        )

    def repair(self, value: Any, path: str) -> Repair:
        fields = self.mapping(value, path, ("kind", "original", "size", "sha256"))
        return Repair(
            kind=self.text(fields["kind"], f"{path}.kind"),
            original=self.place(fields["original"], f"{path}.original"),
            size=self.size(fields["size"], f"{path}.size"),
            sha256=self.text(fields["sha256"], f"{path}.sha256", _SHA256),
        )

    def header(self, value: Any, path: str) -> dict[str, Fact]:
        for key, fact in self.mapping(value, path, None).items():
            if not isinstance(fact, bool | int | str | None):
                raise self.wrong(f"{path}.{key}", "a text, a whole number or a boolean", fact)
        return dict(value)

    def place(self, value: Any, path: str) -> str:
        if not isinstance(value, str) or not is_safe_path(value):
            raise self.wrong(path, "the path of a .gguf file inside models/", value)
        return value

    def size(self, value: Any, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(path, "a number of bytes", value)
        return value
