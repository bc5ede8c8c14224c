"""The templates in force, built-in or the stack's own, and what was made of them last."""

from __future__ import annotations

import hashlib
import json

from llmctl import files
from llmctl.core.codec import canonical, decode
from llmctl.core.deployment import Deployment, Rendered
from llmctl.errors import ConfigError, LlmctlError
from llmctl.paths import StackPaths, builtin_templates


def load_templates(paths: StackPaths) -> dict[str, tuple[str, str]]:
    """Template name -> (where it lies, its text); a user's file wins over the built-in one.

    Raises:
        ConfigError: a file in the user's `templates/` has the suffix of a template and the name of
            none; it would silently do nothing.
    """
    builtin = builtin_templates()
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(builtin.glob("*.j2")):
        found[path.name] = (f"built-in templates/{path.name}", files.read_text(path) or "")
    if paths.templates.resolve() == builtin.resolve():
        return found  # run from llmctl's own checkout
    names = set(found)
    for path in sorted(paths.templates.glob("*.j2")):
        # A leading underscore marks a file for {% include %} or {% import %}.
        if path.name not in names and not path.name.startswith("_"):
            raise ConfigError(
                f"templates/{path.name}: overrides nothing; there are {', '.join(sorted(names))}",
                hint=f"to include it from another template, name it _{path.name}",
            )
        found[path.name] = (f"templates/{path.name}", files.read_text(path) or "")
    return found


def load_rendered(paths: StackPaths) -> Rendered | None:
    """What was rendered last; None when it is not known or was altered."""
    try:
        found = decode(Rendered, json.loads(files.read_text(paths.rendered) or "null"))
    except (ValueError, TypeError, KeyError, LlmctlError):
        return None
    for file in found.files:
        if hashlib.sha256(file.content.encode("utf-8")).hexdigest() != file.sha256:
            return None
    return found


def keep_rendered(paths: StackPaths, deployment: Deployment) -> None:
    """Remember what was rendered, so that the next time the same need not be rendered again."""
    rendered = Rendered(deployment.rendered, deployment.files)
    if rendered != load_rendered(paths):
        files.write_atomic(paths.rendered, canonical(rendered) + "\n")
