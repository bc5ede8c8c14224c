"""Templates and values into configuration files; the only user of Jinja.

A rendered file is data: the filter `yaml` quotes whatever it is given, and every rendered YAML is
parsed and checked before anybody writes it.

Each file starts with a stamp, a comment with the SHA-256 of what follows. It needs no state beside
the file, so an edit by hand is noticed even after a fresh clone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl import __version__
from llmctl.core.codec import digest
from llmctl.core.deployment import Rendered, RenderedFile
from llmctl.core.localai_config import check_litellm_config, check_model_config
from llmctl.core.tuning import EngineSettings
from llmctl.errors import ConfigError

MODEL_TEMPLATE = "localai-model.yaml.j2"
VICUNA_TEMPLATE = "vicuna.tmpl.j2"
LITELLM_TEMPLATE = "litellm.yaml.j2"
LITELLM_FILE = "litellm/litellm.yaml"

# Seconds the gateway waits for the engine: a cold 5 GB model from a slow disk takes minutes.
GATEWAY_TIMEOUT_S = 900

_STAMPS = {
    ".yaml": ("# llmctl ", "\n"),
    # A Go template comment with trim marker leaves nothing in the prompt.
    ".tmpl": ("{{- /* llmctl ", " */ -}}\n"),
}
_STAMP_TEXT = "rendered this file; edit llmctl.yaml or templates/ instead. sha256:"


@dataclass(frozen=True)
class ModelValues:
    """What the templates are given of a model; see the head of `templates/localai-model.yaml.j2`.

    Attributes:
        name: In the API.
        model: The language model's path below models/.
        mmproj: The projector's, None without one.
        gpu: Whether a GPU is used.
        template: "tokenizer" or "vicuna".
        api_base: Where the gateway finds the engine that serves it.
        engine: The engine's settings; the templates see each by its own name.
    """

    name: str
    model: str
    mmproj: str | None
    gpu: bool
    template: str
    api_base: str
    engine: EngineSettings

    @property
    def variables(self) -> dict[str, Any]:
        """By the names that the templates use."""
        shares = ",".join(f"{share:g}" for share in self.engine.tensor_split)
        return {**vars(self), **vars(self.engine), "tensor_split": shares}


def render(
    models: tuple[ModelValues, ...],
    *,
    templates: Mapping[str, tuple[str, str]],
    needs_key: bool,
    before: Rendered | None = None,
) -> Rendered:
    """All configuration files of a stack.

    Args:
        models: One entry per model.
        templates: Template name -> (where it lies, for messages; its text).
        needs_key: Whether the gateway asks for a key.
        before: What an earlier call made; given back when the same went into it, because loading the
            template engine takes longer than all the rest of an `up` that has nothing to do.

    Raises:
        ConfigError: a template is broken, or what it makes would not work.
    """
    inputs = digest([__version__, list(models), sorted(templates.items()), needs_key])
    if before is not None and before.inputs == inputs:
        return before
    return Rendered(inputs, _render(models, templates, needs_key=needs_key))


def _render(
    models: tuple[ModelValues, ...], templates: Mapping[str, tuple[str, str]], *, needs_key: bool
) -> tuple[RenderedFile, ...]:
    files = []
    for model in models:
        vicuna = model.template == "vicuna"
        values = {**model.variables, "template_file": model.name if vicuna else None}
        origin, text = _render_one(templates, MODEL_TEMPLATE, values)
        check_model_config(text, origin, has_template=vicuna)
        files.append(_stamped(f"models/{model.name}.yaml", text))
        if vicuna:
            _, prompt = _render_one(templates, VICUNA_TEMPLATE, values)
            # The model answers right after the last character: no line break may follow it.
            files.append(_stamped(f"models/{model.name}.tmpl", prompt.rstrip("\n")))
    values = {
        "models": [model.variables for model in models],
        "needs_key": needs_key,
        "timeout_s": GATEWAY_TIMEOUT_S,
    }
    origin, text = _render_one(templates, LITELLM_TEMPLATE, values)
    check_litellm_config(text, origin, [model.name for model in models])
    files.append(_stamped(LITELLM_FILE, text))
    return tuple(files)


def is_pristine(path: str, content: str) -> bool:
    """Whether a file carries our stamp and is exactly as we wrote it."""
    start, end = _marks(path)
    found = re.match(
        re.escape(start) + re.escape(_STAMP_TEXT) + r"([0-9a-f]{64})" + re.escape(end), content
    )
    return found is not None and found[1] == _sha256(content[found.end() :])


def yaml_scalar(value: str) -> str:
    """Any text as one double-quoted YAML scalar on one line."""
    import yaml

    quoted = yaml.safe_dump(
        value, default_style='"', allow_unicode=True, width=float("inf"), line_break="\n"
    )
    return str(quoted).removesuffix("\n")


def _render_one(
    templates: Mapping[str, tuple[str, str]], name: str, values: Mapping[str, Any]
) -> tuple[str, str]:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    sources = {key: text for key, (_, text) in templates.items()}
    environment = SandboxedEnvironment(
        loader=jinja2.DictLoader(sources),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["yaml"] = yaml_scalar
    try:
        text = environment.get_template(name).render(values)
    except jinja2.TemplateNotFound as error:
        raise ConfigError(f"templates/{error.name}: no such template") from error
    except jinja2.TemplateSyntaxError as error:
        where = templates.get(error.name or name, (name, ""))[0]
        raise ConfigError(f"{where}: line {error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise ConfigError(
            f"{templates[name][0]}: {error.message}",
            hint="the head of the built-in template lists the variables: llmctl config templates",
        ) from error
    except jinja2.TemplateError as error:
        raise ConfigError(f"{templates[name][0]}: {error.message}") from error
    return templates[name][0], text.rstrip("\n") + "\n"


def _stamped(path: str, body: str) -> RenderedFile:
    start, end = _marks(path)
    content = f"{start}{_STAMP_TEXT}{_sha256(body)}{end}{body}"
    return RenderedFile(path, content, _sha256(content))


def _marks(path: str) -> tuple[str, str]:
    return _STAMPS[path[path.rfind(".") :]]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
