"""The templates in force: built-in ones, overridden by the stack's own directory."""

from __future__ import annotations

from llmctl import files
from llmctl.errors import ConfigError
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
