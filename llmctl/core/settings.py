"""Every key a stack file may hold, as one table.

The parser, the JSON Schema, the environment variables, `--set` and `config show --origin` are all
read off this table, so a key exists everywhere or nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

AUTO = "auto"
SWITCH = (AUTO, "on", "off")
LARGEST_SHARE = 1e9
SHOWN = 60  # characters of a wrong value in a message


class WrongValueError(Exception):
    """A value does not fit its key; the text says what would."""


class Kind(Protocol):
    """The type of one setting."""

    def check(self, value: Any) -> Any:
        """The value in its canonical form; WrongValueError names what was expected."""

    def from_text(self, text: str) -> Any:
        """The value that an environment variable or `--set` spells; not checked yet."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value as written in YAML."""


@dataclass(frozen=True)
class Text:
    """A string that matches `pattern` in full; `words` say so to a person."""

    pattern: str = r"[^\x00-\x1f\x7f]+"
    words: str = "a text on one line"

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise WrongValueError(f"expected {self.words}, got {describe(value)}")
        return value

    def from_text(self, text: str) -> Any:
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Integer:
    """A whole number within bounds, or the word `auto` where that is allowed."""

    low: int
    high: int
    auto: bool = False

    def check(self, value: Any) -> int | str:
        if self.auto and value == AUTO:
            return AUTO
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not self.low <= value <= self.high:
            either = '"auto" or ' if self.auto else ""
            raise WrongValueError(
                f"expected {either}a whole number from {self.low} to {self.high},"
                f" got {describe(value)}"
            )
        return int(value)

    def from_text(self, text: str) -> Any:
        return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else text

    def schema(self) -> dict[str, Any]:
        number: dict[str, Any] = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"const": AUTO}, number]} if self.auto else number


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    def check(self, value: Any) -> str:
        # YAML 1.1 reads a bare `none`-like word as a text but `off`/`no` as false: say so plainly.
        if value not in self.options:
            raise WrongValueError(
                f"expected one of {', '.join(self.options)}, got {describe(value)}"
            )
        return str(value)

    def from_text(self, text: str) -> Any:
        return text

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.options)}


@dataclass(frozen=True)
class Switch:
    """on, off or auto; YAML reads a bare `on` as true, so truth values are taken as well."""

    def check(self, value: Any) -> str:
        word = ("on" if value else "off") if isinstance(value, bool) else value
        if word not in SWITCH:
            raise WrongValueError(f"expected one of {', '.join(SWITCH)}, got {describe(value)}")
        return str(word)

    def from_text(self, text: str) -> Any:
        return {"true": "on", "false": "off"}.get(text.lower(), text)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(SWITCH)}, {"type": "boolean"}]}


@dataclass(frozen=True)
class Shares:
    """Numbers that say how something is divided, or `auto`: `[2, 1]`, or "2,1" as a text."""

    most: int = 128

    def check(self, value: Any) -> tuple[float, ...] | str:
        if value == AUTO:
            return AUTO
        items = self.from_text(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not 0 < len(items) <= self.most:
            raise WrongValueError(f"expected auto or shares such as [2, 1], got {describe(value)}")
        for item in items:
            number = isinstance(item, int | float) and not isinstance(item, bool)
            if not number or not 0 <= item < LARGEST_SHARE:
                raise WrongValueError(f"expected shares such as [2, 1], got {describe(item)} in it")
        if not any(items):
            raise WrongValueError("expected shares of which one is above 0")
        return tuple(float(item) for item in items)

    def from_text(self, text: str) -> Any:
        parts = [part.strip() for part in text.split(",")]
        decimal = all(re.fullmatch(r"\d{1,9}(\.\d{1,9})?", part) for part in parts)
        return [float(part) for part in parts] if decimal else text

    def schema(self) -> dict[str, Any]:
        share = {"type": "number", "minimum": 0}
        return {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": share, "minItems": 1, "maxItems": self.most},
            ]
        }


@dataclass(frozen=True)
class OneOrMany:
    """One text or a list of them, kept as a tuple; a comma separates them in the environment."""

    item: Text
    empty_allowed: bool = False

    def check(self, value: Any) -> tuple[str, ...]:
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not items and not self.empty_allowed:
            raise WrongValueError(
                f"expected {self.item.words} or a list of them, got an empty list"
            )
        return tuple(dict.fromkeys(self.item.check(one) for one in items))

    def from_text(self, text: str) -> Any:
        return [part.strip() for part in text.split(",") if part.strip()]

    def schema(self) -> dict[str, Any]:
        one = self.item.schema()
        least = {} if self.empty_allowed else {"minItems": 1}
        return {"anyOf": [one, {"type": "array", "items": one, **least}]}


@dataclass(frozen=True)
class Setting:
    """One key.

    Attributes:
        path: Dotted path in the stack file.
        kind: Its type.
        default: Value when nobody says anything; None means "llmctl decides, see `doc`".
        doc: One sentence for `config schema` and the reference.
    """

    path: str
    kind: Kind
    default: Any
    doc: str
    examples: tuple[str, ...] = field(default=(), compare=False)

    @property
    def environment(self) -> str:
        """The environment variable that sets this key."""
        return "LLMCTL_" + self.path.replace(".", "_").upper()


# A stack's name becomes a part of container, network and volume names.
STACK_NAME = Text(r"[a-z0-9][a-z0-9_-]{0,39}", "a name of a-z, 0-9, - and _")
# LocalAI matches model names as regular expressions and derives file names from them.
MODEL_NAME = Text(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,79}",
    "a model name of letters, digits, '-', '_' and single dots",
)
IMAGE = Text(
    r"[a-z0-9][A-Za-z0-9._:/@-]{1,254}",
    "an image reference such as localai/localai:v4.9.0",
)
ADDRESS = Text(r"host-gateway|[0-9.]{7,15}|[0-9A-Fa-f:]{2,39}", "an IP address or host-gateway")
SOURCE = Text(
    r"[^\x00-\x1f\x7f]{1,500}",
    "a catalogue name, or hf://organisation/repository[:quantisation][@revision]",
)
LOCAL_FILE = Text(r"[^\x00-\x1f\x7f]{1,1000}\.gguf", "the path of a .gguf file")
BACKEND = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]*|(?:oci|ocifile)://[^\s'\"]+",
    "a backend's gallery name, or oci://IMAGE or ocifile:///PATH.tar",
)

GPU_CHOICES = ("auto", "none", "nvidia", "amd", "intel", "vulkan")

CONTEXT = Integer(256, 1_048_576)
PARALLEL = Integer(1, 256)
THREADS = Integer(1, 1024, auto=True)
GPU_LAYERS = Integer(0, 10_000, auto=True)
TEMPLATE = Choice((AUTO, "tokenizer", "vicuna"))
BATCH = Integer(1, 65_536, auto=True)
# What llama.cpp can keep its cache in.
CACHE_TYPE = Choice((AUTO, "f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"))
SWITCHED = Switch()

# Settings of the engine that change what it takes of the memory. `auto` is chosen by the memory plan
# (`llmctl fit`) where a GPU is used and the model's headers are here.
ENGINE_SETTINGS: tuple[Setting, ...] = (
    Setting("batch", BATCH, AUTO, "Tokens of a prompt taken at once (n_batch); auto is 512."),
    Setting(
        "ubatch", BATCH, AUTO, "Tokens computed at once (n_ubatch); auto is 512, less if tight."
    ),
    Setting(
        "cache_type_k",
        CACHE_TYPE,
        AUTO,
        "How the K half of the context is kept; auto is f16, or q8_0 where that makes it fit.",
    ),
    Setting(
        "cache_type_v",
        CACHE_TYPE,
        AUTO,
        "The same for the V half; anything but f16, bf16 and f32 needs flash attention.",
    ),
    Setting(
        "flash_attention",
        SWITCHED,
        AUTO,
        "Attention without a matrix of scores; auto is on where the hardware can do it.",
    ),
    Setting(
        "tensor_split",
        Shares(),
        AUTO,
        "Shares of several GPUs, [2, 1]; auto divides by their free memory.",
    ),
    Setting(
        "kv_unified",
        SWITCHED,
        AUTO,
        "One context for all slots (on, and auto) rather than an equal part for each.",
    ),
    Setting(
        "image_max_tokens",
        Integer(1, 65_536, auto=True),
        AUTO,
        "Most tokens of one picture, for models that see pictures at their own size; auto leaves it to"
        " the model, less if tight.",
    ),
    Setting(
        "projector_on_gpu",
        SWITCHED,
        AUTO,
        "Whether the projector lies on the GPU; auto is on, off if tight.",
    ),
    Setting(
        "experts_on_cpu",
        Integer(0, 10_000, auto=True),
        AUTO,
        "Blocks whose experts stay in RAM (mixture-of-experts models); auto is 0, more if tight.",
    ),
    Setting(
        "cache_ram",
        Integer(-1, 16_777_216, auto=True),
        AUTO,
        "MiB of RAM for prompts seen before, -1 without limit; auto is 2048.",
    ),
    Setting(
        "ctx_checkpoints",
        Integer(0, 1024, auto=True),
        AUTO,
        "Saved states per slot, for models that cannot cut a prompt back; auto is 32.",
    ),
)

STACK_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "name", STACK_NAME, "llmctl", "Name of the stack; containers, network and volumes carry it."
    ),
    Setting(
        "engine",
        Choice((AUTO, "docker", "process")),
        AUTO,
        "What runs the services: containers, or local processes (llmctl[local]); auto prefers Docker.",
    ),
    Setting(
        "gpu", Choice(GPU_CHOICES), AUTO, "GPU passed to the engine; auto takes what the host has."
    ),
    Setting(
        "gpu_devices",
        OneOrMany(Text(r"[A-Za-z0-9:._-]{1,80}", "a GPU's UUID or index"), empty_allowed=True),
        (),
        "NVIDIA GPUs by UUID or index (nvidia-smi -L lists them); empty means all.",
    ),
    Setting("context", CONTEXT, 4096, "Context length in tokens, picture tokens included."),
    Setting("parallel", PARALLEL, 1, "Requests answered at the same time; they share the context."),
    Setting("threads", THREADS, AUTO, "CPU threads of the engine; auto is the physical cores."),
    Setting(
        "gpu_layers",
        GPU_LAYERS,
        AUTO,
        "Layers put on the GPU, the output counted as one; auto is as many as fit, 0 without a GPU.",
    ),
    *ENGINE_SETTINGS,
    Setting(
        "gateway.host",
        OneOrMany(ADDRESS),
        ("127.0.0.1",),
        "Addresses the gateway listens on; host-gateway is the address other containers reach as"
        " host.docker.internal.",
    ),
    Setting("gateway.port", Integer(1, 65535), 28000, "Port of the OpenAI-compatible endpoint."),
    Setting(
        "gateway.auth",
        Choice((AUTO, "key", "open")),
        AUTO,
        "auto asks for a key unless the gateway listens on loopback only.",
    ),
    Setting("localai.image", IMAGE, None, "LocalAI image; by default chosen with the GPU."),
    Setting(
        "localai.backend", BACKEND, "llama-cpp", "LocalAI backend put into the backends volume."
    ),
    Setting("localai.port", Integer(1, 65535), 28080, "Port of LocalAI itself, on 127.0.0.1 only."),
    Setting("litellm.image", IMAGE, "litellm/litellm:v1.103.0", "LiteLLM proxy image."),
)

MODEL_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "name", MODEL_NAME, None, "Name in the API; by default the catalogue's or repository's."
    ),
    Setting(
        "source",
        SOURCE,
        None,
        "Catalogue name, or hf://organisation/repository[:quant][@revision].",
    ),
    Setting("model", LOCAL_FILE, None, "A local language model file, instead of a source."),
    Setting("mmproj", LOCAL_FILE, None, "The local projector file that belongs to it."),
    Setting("context", CONTEXT, None, "As the stack's, for this model."),
    Setting("parallel", PARALLEL, None, "As the stack's, for this model."),
    Setting("threads", THREADS, None, "As the stack's, for this model."),
    Setting("gpu_layers", GPU_LAYERS, None, "As the stack's, for this model."),
    *(Setting(s.path, s.kind, None, "As the stack's, for this model.") for s in ENGINE_SETTINGS),
    Setting("template", TEMPLATE, AUTO, "Prompt format: the GGUF's own (tokenizer) or vicuna's."),
)

MODELS_VARIABLE = "LLMCTL_MODELS"
DEFAULT_MODELS = ("llava",)


def describe(value: Any) -> str:
    """A value in an error message: short, with its YAML type."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case str():
            shown = value if len(value) <= SHOWN else value[: SHOWN - 3] + "..."
            return f'"{shown}"' if shown.isprintable() else f"{shown!r}"
        case int() | float():
            return f"{value}"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"
