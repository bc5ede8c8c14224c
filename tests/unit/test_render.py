"""Rendered files: what the guide's become, and that data stays data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.deployment import Deployment, RenderedFile
from llmctl.core.render import ModelValues, is_pristine, render, yaml_scalar
from llmctl.core.tuning import EngineSettings
from llmctl.errors import ConfigError
from llmctl.ops.templates import keep_rendered, load_rendered, load_templates
from llmctl.paths import StackPaths, builtin_templates

LLAVA = ModelValues(
    name="llava",
    model="ggml-model-q4_k.gguf",
    mmproj="mmproj-model-f16.gguf",
    gpu=True,
    template="vicuna",
    api_base="http://localai:8080/v1",
    engine=EngineSettings(context=4096, threads=8, gpu_layers=999),
)
TEMPLATES = {
    path.name: (path.name, path.read_text(encoding="utf-8"))
    for path in builtin_templates().glob("*.j2")
}


def rendered(*models: ModelValues, **changed: str) -> dict[str, RenderedFile]:
    templates = TEMPLATES | {name: (f"templates/{name}", text) for name, text in changed.items()}
    files = render(models or (LLAVA,), templates=templates, needs_key=False).files
    return {file.path: file for file in files}


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        rendered(**{"localai-model.yaml.j2": text})
    return caught.value.message


def test_llava_yaml_carries_the_guides_meaning_as_localai_reads_it() -> None:
    config = yaml.safe_load(rendered()["models/llava.yaml"].content)
    assert config["name"] == "llava"
    assert config["backend"] == "llama-cpp"
    assert config["parameters"]["model"] == "ggml-model-q4_k.gguf"
    assert config["mmproj"] == "mmproj-model-f16.gguf"
    assert (config["context_size"], config["threads"], config["gpu_layers"]) == (4096, 8, 999)
    assert config["mmap"] is True
    assert config["flash_attention"] == "auto"
    assert config["options"] == [
        *("parallel:1", "ubatch:512", "kv_unified:true", "cache_ram:2048", "ctx_checkpoints:32"),
        "mmproj_use_gpu:true",
    ]
    assert (config["cache_type_k"], config["cache_type_v"]) == ("f16", "f16")
    assert (config["parameters"]["batch"], "tensor_split" in config) == (512, False)
    assert config["roles"]["user"].startswith("USER:")
    assert "</s>" in config["stopwords"]
    assert config["template"] == {"chat": "llava"}
    assert "f16" not in config  # has no effect on LocalAI's llama.cpp backend


def test_the_prompt_ends_where_the_model_answers() -> None:
    text = rendered()["models/llava.tmpl"].content
    assert "{{.Input}}" in text
    assert text.endswith("\nASSISTANT:")


def test_a_model_with_its_own_chat_template_gets_no_tmpl() -> None:
    files = rendered(dataclasses.replace(LLAVA, template="tokenizer"))
    assert set(files) == {"models/llava.yaml", "litellm/litellm.yaml"}
    config = yaml.safe_load(files["models/llava.yaml"].content)
    assert config["template"] == {"use_tokenizer_template": True}
    assert "roles" not in config


def test_litellm_finds_the_engine_on_the_stacks_network() -> None:
    config = yaml.safe_load(rendered()["litellm/litellm.yaml"].content)
    (model,) = config["model_list"]
    assert model["model_name"] == "llava"
    assert model["litellm_params"]["model"] == "openai/llava"
    assert model["litellm_params"]["api_base"] == "http://localai:8080/v1"
    assert model["litellm_params"]["timeout"] >= 600
    assert model["model_info"]["supports_vision"] is True
    assert config["litellm_settings"]["turn_off_message_logging"] is True
    assert config["general_settings"] == {"dangerously_permit_weak_or_unset_master_key": True}


def test_with_a_key_the_file_names_the_variable_and_never_the_key() -> None:
    files = render((LLAVA,), templates=TEMPLATES, needs_key=True).files
    config = yaml.safe_load(files[-1].content)
    assert config["general_settings"] == {"master_key": "os.environ/LITELLM_MASTER_KEY"}


@given(st.text())
def test_any_text_is_one_yaml_scalar_on_one_line(text: str) -> None:
    scalar = yaml_scalar(text)
    assert "\n" not in scalar
    assert yaml.safe_load(scalar) == text
    assert yaml.safe_load(f"a: {scalar}\nb: 1\n") == {"a": text, "b": 1}


hostile = st.text(min_size=1).filter(lambda t: ".." not in t and not t.startswith("/"))


@given(hostile, hostile, hostile)
def test_names_and_paths_cannot_break_out_of_their_value(
    name: str, model: str, mmproj: str
) -> None:
    values = dataclasses.replace(LLAVA, name=name, model=model, mmproj=mmproj)
    files = render((values,), templates=TEMPLATES, needs_key=False).files
    config, _, gateway = (f.content for f in files)
    found: dict[str, Any] = yaml.safe_load(config)
    reference = yaml.safe_load(rendered()["models/llava.yaml"].content)
    assert list(found) == list(reference)
    assert (found["name"], found["parameters"]["model"], found["mmproj"]) == (name, model, mmproj)
    (entry,) = yaml.safe_load(gateway)["model_list"]
    assert entry["model_name"] == name


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../../b.gguf", "..\\x.gguf", "a..b.gguf"])
def test_a_path_that_leaves_the_models_directory_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="LocalAI refuses a path"):
        rendered(dataclasses.replace(LLAVA, model=path))
    with pytest.raises(ConfigError, match="LocalAI refuses a path"):
        rendered(dataclasses.replace(LLAVA, mmproj=path))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("f16: true", "f16: has no effect on LocalAI's llama.cpp backend"),
        ("contxt_size: 1", "contxt_size: unknown to LocalAI, which would ignore it"),
        ("flash_attention: true", "flash_attention: must be str for LocalAI, is true (a boolean)"),
        ("flash_attention: yes please", "flash_attention: must be one of auto"),
        ('context_size: "4096"', 'context_size: must be int for LocalAI, is "4096"'),
        ("options:\n  - parallel: 4", "options.0: must be str for LocalAI, is a mapping"),
        ("stopwords: x", 'stopwords: must be list for LocalAI, is "x"'),
        ("cache_type_k: q9", "cache_type_k: must be one of f32"),
        ("template: {image: x}", "template.image: unknown to LocalAI"),
        ("name: a", 'renders to broken YAML: line 4, column 1: the key "name" is there twice'),
    ],
)
def test_what_localai_would_misread_is_refused(extra: str, message: str) -> None:
    text = f"name: a\nbackend: llama-cpp\nparameters: {{model: a.gguf}}\n{extra}\n"
    assert refusal(text).startswith(f"templates/localai-model.yaml.j2: {message}")


def test_a_template_file_that_nothing_renders_is_refused() -> None:
    text = "name: a\nbackend: llama-cpp\nparameters: {model: a.gguf}\ntemplate: {chat: other}\n"
    with pytest.raises(ConfigError, match="names a .tmpl file that nothing renders"):
        render(
            (dataclasses.replace(LLAVA, template="tokenizer"),),
            templates=TEMPLATES | {"localai-model.yaml.j2": ("templates/x", text)},
            needs_key=False,
        )


def test_a_broken_template_is_named_with_its_line() -> None:
    assert refusal("a\n{% if %}\n").startswith("templates/localai-model.yaml.j2: line 2: ")
    assert "'nope' is undefined" in refusal("{{ nope }}")


def test_a_template_cannot_run_code() -> None:
    assert "unsafe" in refusal("{{ ''.__class__.__mro__ }}")


def test_a_stamp_tells_an_edit_from_our_own_work() -> None:
    for file in rendered().values():
        assert is_pristine(file.path, file.content)
        assert not is_pristine(file.path, file.content[:-2] + "?")
        assert not is_pristine(file.path, file.content + "\n")
        body = file.content.split("\n", 1)[1]
        assert not is_pristine(file.path, body)


def test_the_users_templates_win(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    own = tmp_path / "templates" / "vicuna.tmpl.j2"
    own.write_text("{% raw %}{{.Input}}{% endraw %} 答え:", encoding="utf-8")
    templates = load_templates(StackPaths.at(tmp_path))
    assert templates["vicuna.tmpl.j2"][0] == "templates/vicuna.tmpl.j2"
    files = render((LLAVA,), templates=templates, needs_key=False).files
    assert files[1].content.endswith("{{.Input}} 答え:")


def test_a_template_of_the_users_that_overrides_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "vicunna.tmpl.j2").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="overrides nothing"):
        load_templates(StackPaths.at(tmp_path))


def test_the_same_is_not_rendered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render((LLAVA,), templates=TEMPLATES, needs_key=False)
    monkeypatch.setattr("llmctl.core.render._render_one", None)
    assert render((LLAVA,), templates=TEMPLATES, needs_key=False, before=first) is first
    for change in (
        {"models": (dataclasses.replace(LLAVA, name="other"),)},
        {"templates": {**TEMPLATES, "litellm.yaml.j2": ("mine", "")}},
        {"needs_key": True},
    ):
        asked = {"models": (LLAVA,), "templates": TEMPLATES, "needs_key": False, **change}
        with pytest.raises(TypeError):
            render(**asked, before=first)  # type: ignore[arg-type]


def test_what_was_rendered_is_kept_and_checked(tmp_path: Path) -> None:
    paths = StackPaths.at(tmp_path)
    rendered = render((LLAVA,), templates=TEMPLATES, needs_key=False)
    deployment = Deployment("s", "/s", files=rendered.files, rendered=rendered.inputs)
    assert load_rendered(paths) is None
    keep_rendered(paths, deployment)
    assert load_rendered(paths) == rendered
    text = paths.rendered.read_text(encoding="utf-8")
    for damage in (text.replace("llava", "lava", 1), text[:-9], "[]", "null", '{"inputs": 1}'):
        paths.rendered.write_text(damage, encoding="utf-8")
        assert load_rendered(paths) is None
