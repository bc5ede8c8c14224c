"""The stack file: defaults, precedence, refusals, schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.schema import stack_schema
from llmctl.core.settings import STACK_SETTINGS
from llmctl.core.stack import Resolved, default_model_name, resolve_stack
from llmctl.core.tuning import Tuning
from llmctl.errors import ConfigError

FILE = "llmctl.yaml"


def resolve(
    document: Any = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, tuple[str, str]] | None = None,
) -> Resolved:
    return resolve_stack(document, file=FILE, environment=environment or {}, flags=flags or {})


def refusal(document: Any = None, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(document, **more)
    return caught.value


def test_without_a_file_the_stack_is_llava_behind_a_gateway_on_loopback() -> None:
    stack = resolve().stack
    assert [model.name for model in stack.models] == ["llava"]
    assert stack.models[0].source == "llava"
    assert (stack.gateway_hosts, stack.gateway_port) == (("127.0.0.1",), 28000)
    assert not stack.needs_key


def test_flag_beats_environment_beats_file_beats_default() -> None:
    document = {"gateway": {"port": 1}, "gpu": "amd"}
    environment = {"LLMCTL_GATEWAY_PORT": "2", "LLMCTL_GPU": "intel"}
    flags = {"gateway.port": ("--set gateway.port", "3")}
    found = resolve(document, environment, flags)
    assert found.stack.gateway_port == 3
    assert found.stack.gpu == "intel"
    assert resolve(document).stack.gpu == "amd"
    origins = {path: value.origin for path, value in found.values.items()}
    assert origins["gateway.port"] == "--set gateway.port"
    assert origins["gpu"] == "environment LLMCTL_GPU"
    assert origins["context"] == "default"
    assert resolve(document).values["gpu"].origin == FILE


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"modls": []}, "llmctl.yaml: modls: unknown key, did you mean models?"),
        (
            {"models": [{"source": "llava", "contxt": 1}]},
            "llmctl.yaml: models.0.contxt: unknown key, did you mean context?",
        ),
        ({"gateway": {"prt": 1}}, "llmctl.yaml: gateway.prt: unknown key, did you mean port?"),
        (
            {"context": "4096"},
            'llmctl.yaml: context: expected a whole number from 256 to 1048576, got "4096"',
        ),
        (
            {"gateway": {"port": True}},
            "llmctl.yaml: gateway.port: expected a whole number from 1 to 65535, got true (a boolean)",
        ),
        ({"gateway": 28000}, "llmctl.yaml: gateway: expected keys and values, got 28000"),
        (
            {"gpu": "cuda"},
            'llmctl.yaml: gpu: expected one of auto, none, nvidia, amd, intel, vulkan, got "cuda"',
        ),
        ({"models": {}}, "llmctl.yaml: models: expected a list with at least one model"),
        ([], "llmctl.yaml: expected keys and values, got a list"),
        ({"models": [{}]}, "llmctl.yaml: models.0: needs either `source`"),
        ({"models": [{"source": "a", "model": "b.gguf"}]}, "llmctl.yaml: models.0: needs either"),
        (
            {"models": [{"source": "a", "mmproj": "b.gguf"}]},
            "llmctl.yaml: models.0.mmproj: a local projector needs its local `model`",
        ),
        ({"models": ["llava", "llava"]}, 'llmctl.yaml: models.1.name: "llava" is used twice'),
        ({"models": [{"source": "llava", "name": "../x"}]}, "llmctl.yaml: models.0.name: expected"),
        (
            {"models": [{"source": "llava", "name": "a\nb: c"}]},
            "llmctl.yaml: models.0.name: expected",
        ),
        (
            {"gateway": {"host": ["0.0.0.0", "127.0.0.1"]}},
            "llmctl.yaml: gateway.host: 0.0.0.0 already",
        ),
        ({"gateway": {"host": []}}, "llmctl.yaml: gateway.host: expected an IP address"),
        ({"localai": {"backend": "x; rm -rf /"}}, "llmctl.yaml: localai.backend: expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(document: Any, message: str) -> None:
    assert refusal(document).message.startswith(message)


def test_an_unknown_variable_is_refused_like_an_unknown_key() -> None:
    error = refusal(environment={"LLMCTL_GATEWAY_PROT": "1"})
    assert error.message == (
        "environment: LLMCTL_GATEWAY_PROT: unknown variable, did you mean LLMCTL_GATEWAY_PORT?"
    )


def test_a_wrong_flag_is_named_by_the_flag() -> None:
    error = refusal(flags={"gateway.port": ("--set gateway.port", "http")})
    assert error.message.startswith("--set gateway.port: gateway.port: expected a whole number")
    error = refusal(flags={"gateway.prt": ("--set gateway.prt", "1")})
    assert (
        error.message == "--set gateway.prt: gateway.prt: unknown key, did you mean gateway.port?"
    )


@pytest.mark.parametrize(
    ("gateway", "needed"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": ["127.0.0.1", "host-gateway"]}, True),
        ({"host": "0.0.0.0", "auth": "open"}, False),
        ({"auth": "key"}, True),
    ],
)
def test_a_key_is_asked_for_wherever_more_than_this_machine_can_reach(
    gateway: dict[str, Any], needed: bool
) -> None:
    assert resolve({"gateway": gateway}).stack.needs_key is needed


def test_a_model_takes_the_stacks_defaults_unless_it_says_otherwise() -> None:
    document = {"context": 8192, "threads": 4, "models": ["llava", {"source": "x", "context": 512}]}
    one, two = resolve(document).stack.models
    assert (one.context, one.threads, two.context, two.threads) == (8192, 4, 512, 4)
    assert resolve().stack.models[0].threads is None


def test_models_can_come_from_the_environment_and_from_a_flag() -> None:
    assert [m.name for m in resolve(environment={"LLMCTL_MODELS": "llava, x"}).stack.models] == [
        "llava",
        "x",
    ]
    found = resolve({"models": ["a"]}, flags={"models": ("--set models", "b")})
    assert [m.name for m in found.stack.models] == ["b"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("llava", "llava"),
        ("hf://ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q4_K_M@main", "qwen2.5-vl-3b-instruct"),
        ("models/日本 語.gguf", "model"),
        ("models/my model.gguf", "my-model"),
        ("hf://a/..", "model"),
    ],
)
def test_a_name_is_made_from_the_source(source: str, name: str) -> None:
    assert default_model_name(source) == name


@given(st.text(min_size=1))
def test_every_source_yields_a_name_that_is_allowed(source: str) -> None:
    from llmctl.core.settings import MODEL_NAME

    assert MODEL_NAME.check(default_model_name(source))


def test_the_schema_knows_every_key_and_accepts_what_the_parser_accepts() -> None:
    schema = stack_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = {
        "name": "x",
        "gateway": {"host": ["127.0.0.1", "host-gateway"], "port": 1, "auth": "key"},
        "threads": "auto",
        "models": ["llava", {"model": "a.gguf", "mmproj": "b.gguf", "name": "a", "gpu_layers": 3}],
        "localai": {"image": "localai/localai:v4.9.0", "backend": "oci://x/y:z", "port": 2},
    }
    resolve(document)
    jsonschema.validate(document, schema)
    for setting in STACK_SETTINGS:
        node = schema
        for part in setting.path.split("."):
            node = node["properties"][part]
        assert node["description"] == setting.doc


@pytest.mark.parametrize(
    "document", [{"contxt": 1}, {"context": "4096"}, {"gpu": "cuda"}, {"models": [{"nam": "x"}]}]
)
def test_the_schema_refuses_what_the_parser_refuses(document: Any) -> None:
    refusal(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, stack_schema())


def test_what_the_engine_is_given_is_fixed_or_left_open() -> None:
    spec = resolve().stack.models[0]
    assert spec.tuning == Tuning()
    assert spec.tuning.fixed == frozenset()
    document = {
        "context": 8192,
        "flash_attention": True,  # YAML's reading of a bare `on`
        "models": [
            {
                "source": "llava",
                "kv_unified": False,
                "tensor_split": "2, 1.5",
                "cache_ram": -1,
                "projector_on_gpu": "auto",
                "experts_on_cpu": 0,
            },
            "canary",
        ],
    }
    environment = {"LLMCTL_PROJECTOR_ON_GPU": "false", "LLMCTL_CACHE_TYPE_K": "q8_0"}
    found = resolve(document, environment, {"ubatch": ("--set ubatch", "256")})
    llava, canary = (spec.tuning for spec in found.stack.models)
    assert (llava.flash_attention, llava.kv_unified, llava.tensor_split) == (
        "on",
        False,
        (2.0, 1.5),
    )
    assert (llava.cache_ram, llava.experts_on_cpu, llava.ubatch) == (-1, 0, 256)
    assert llava.projector_on_gpu is None  # its own `auto` wins over the stack's
    assert (canary.projector_on_gpu, canary.kv_unified) == (False, None)
    assert llava.cache_type_k == canary.cache_type_k == "q8_0"
    assert llava.insisted == ("context",)
    assert llava.fixed >= {"context", "kv_unified", "tensor_split", "cache_ram"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"flash_attention": "yes"}, "flash_attention: expected one of auto, on, off"),
        ({"cache_type_k": "q9"}, "cache_type_k: expected one of auto, f16"),
        ({"tensor_split": []}, "tensor_split: expected auto or shares such as [2, 1]"),
        ({"tensor_split": [1, -1]}, "tensor_split: expected shares such as [2, 1], got -1"),
        ({"tensor_split": [0, 0]}, "tensor_split: expected shares of which one is above 0"),
        ({"tensor_split": "half"}, "tensor_split: expected auto or shares"),
        ({"tensor_split": [True]}, "tensor_split: expected shares such as [2, 1], got true"),
        ({"batch": 0}, 'batch: expected "auto" or a whole number from 1 to 65536, got 0'),
        ({"cache_ram": -2}, 'cache_ram: expected "auto" or a whole number from -1'),
    ],
)
def test_what_the_engine_cannot_be_given_is_refused(document: Any, message: str) -> None:
    assert refusal(document).message.startswith(f"llmctl.yaml: {message}")
