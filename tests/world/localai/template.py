"""Prompts from templates: core/templates/cache.go and evaluator.go, over a part of Go's text/template.

Understood: text, ``{{.Field}}``, ``{{if .Field}}``, ``{{if not .Field}}``, ``{{else}}``,
``{{end}}``, comments, trim markers. Anything else fails the template, and LocalAI then sends the
prompt without it and says so only at debug.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.world.localai.config import ModelConfig

MARKER = "<__media__>"  # stands for one picture until the backend's own marker is known

_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?\s*(?:(?P<comment>/\*.*?\*/)|(?P<body>.*?))(?:\s(?P<right>-)|\s*)\}\}",
    re.DOTALL,
)


class TemplateError(ValueError):
    """The template does not parse or cannot be executed."""


class Templates:
    """The models directory's templates, each read once: an edited one needs a restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sources: dict[str, str] = {}

    def source(self, name: str) -> str:
        """The text of ``<name>.tmpl``; without that file the name itself is the template."""
        if name not in self._sources:
            path = self._directory / f"{name}.tmpl"
            try:
                found = path.is_file()
            except OSError:  # a whole inline template is rarely a legal file name
                found = False
            if found and self._directory.resolve() not in path.resolve().parents:
                raise TemplateError("template path outside the models directory")
            self._sources[name] = path.read_text(encoding="utf-8") if found else name
        return self._sources[name]

    def exists(self, name: str) -> bool:
        """True when the models directory has ``<name>.tmpl``."""
        return bool(name) and (self._directory / f"{name}.tmpl").is_file()


def chat_prompt(config: ModelConfig, messages: list[tuple[str, str]], templates: Templates) -> str:
    """The prompt for (role, text) messages: role prefixes, joined, put into the chat template.

    A template that fails leaves the joined messages as they are. With no template the same.
    """
    roles = config.get("roles", {})
    parts = [f"{roles.get(role, '')}{text}" if text else "" for role, text in messages]
    separator: str = config.template("join_chat_messages_by_character", "\n")
    joined = separator.join(parts)
    file_of_model = config.parameter("model", "")
    name = config.template("chat") or (file_of_model if templates.exists(file_of_model) else "")
    if not name:
        return joined
    variables: dict[str, str | bool] = {
        "SystemPrompt": config.get("system_prompt", ""),
        "SuppressSystemPrompt": any(role == "system" and text for role, text in messages),
        "Input": joined,
        "Instruction": "",
        "ReasoningEffort": "",
    }
    try:
        return execute(templates.source(name), variables)
    except TemplateError:
        return joined


def execute(source: str, variables: Mapping[str, str | bool]) -> str:
    """The filled-in template; raises ``TemplateError``."""
    output: list[str] = []
    # One entry for each open {{if}}: whether its current branch is taken. Text counts when all are.
    branches: list[bool] = []
    for text, action in _pieces(source):
        if all(branches):
            output.append(text)
        if action is None:
            break
        _act(action, variables, branches, output)
    if branches:
        raise TemplateError("unexpected EOF: an {{if}} is not closed")
    return "".join(output)


def _pieces(source: str) -> list[tuple[str, str | None]]:
    """Each stretch of text with the action after it (``""`` for a comment, ``None`` at the end)."""
    pieces: list[tuple[str, str | None]] = []
    position, trim = 0, False
    for match in _ACTION.finditer(source):
        text = source[position : match.start()]
        text = text.lstrip() if trim else text
        pieces.append((text.rstrip() if match["left"] else text, match["body"] or ""))
        position, trim = match.end(), bool(match["right"])
    rest = source[position:]
    if "{{" in rest:
        raise TemplateError("unclosed action")
    return [*pieces, (rest.lstrip() if trim else rest, None)]


def _act(
    action: str,
    variables: Mapping[str, str | bool],
    branches: list[bool],
    output: list[str],
) -> None:
    words = action.split()
    match words:
        case []:
            pass
        case ["if", name]:
            branches.append(bool(_look_up(name, variables)))
        case ["if", "not", name]:
            branches.append(not _look_up(name, variables))
        case ["else"] if branches:
            branches[-1] = not branches[-1]
        case ["end"] if branches:
            branches.pop()
        case [name]:
            value = _look_up(name, variables)
            if all(branches):
                output.append(str(value).lower() if isinstance(value, bool) else value)
        case _:
            raise TemplateError(f"not in this subset of text/template: {{{{{action}}}}}")


def _look_up(name: str, variables: Mapping[str, str | bool]) -> str | bool:
    if not name.startswith(".") or name[1:] not in variables:
        raise TemplateError(f"can't evaluate field {name} in type templates.PromptTemplateData")
    return variables[name[1:]]
