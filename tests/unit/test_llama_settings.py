"""LocalAI's YAML for llama.cpp's server: everything is mapped or named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jinja2
import pytest
import xllamacpp
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.llama_settings import jinja_chat_template, llama_settings
from llmctl.errors import ConfigError
from llmctl.llama_server import parameters
from tests.unit.test_render import LLAVA, rendered

ROLES = {"system": "SYSTEM: ", "user": "USER: ", "assistant": "ASSISTANT: "}


def test_all_of_what_we_render_is_mapped() -> None:
    files = rendered(LLAVA)
    config = yaml.safe_load(files["models/llava.yaml"].content)
    settings = llama_settings(config, files["models/llava.tmpl"].content)
    assert settings.unmapped == ()
    assert (settings.name, settings.model, settings.mmproj) == ("llava", LLAVA.model, LLAVA.mmproj)
    assert (settings.context, settings.threads, settings.gpu_layers) == (4096, 8, 999)
    assert (settings.batch, settings.ubatch, settings.parallel) == (512, 512, 1)
    assert settings.cache_ram_mib == 2048
    assert settings.stop == ("</s>", "USER:")
    assert dict(settings.sampling) == {"temperature": 0.2, "top_p": 0.95, "top_k": 40}
    assert settings.chat_template is not None


def test_what_has_no_counterpart_is_named() -> None:
    config = {
        "name": "a",
        "parameters": {"model": "a.gguf", "repeat_penalty": 1.1},
        "options": ["parallel:4", "ubatch:128", "warmup:false", "kv_unified:maybe", "cache_ram:x"],
        "tensor_split": "1,2,all",
        "cache_type_k": "q8_0",
        "template": {"use_tokenizer_template": True},
    }
    settings = llama_settings(config, None)
    assert settings.unmapped == (
        *("options.cache_ram", "options.kv_unified", "options.warmup"),
        *("parameters.repeat_penalty", "tensor_split"),
    )
    assert (settings.parallel, settings.ubatch, settings.cache_type_k) == (4, 128, "q8_0")
    assert settings.chat_template is None


TUNED = dataclasses.replace(
    LLAVA,
    engine=dataclasses.replace(
        LLAVA.engine,
        batch=1024,
        ubatch=256,
        flash_attention="on",
        cache_type_k="q8_0",
        cache_type_v="q4_0",
        tensor_split=(2.0, 1.5),
        kv_unified=False,
        image_max_tokens=768,
        projector_on_gpu=False,
        experts_on_cpu=3,
        cache_ram=-1,
        ctx_checkpoints=4,
    ),
)


def test_every_setting_reaches_llama_cpp() -> None:
    """From the rendered file to the attributes of llama.cpp's own parameters."""
    files = rendered(TUNED)
    config = yaml.safe_load(files["models/llava.yaml"].content)
    settings = llama_settings(config, files["models/llava.tmpl"].content)
    assert settings.unmapped == ()
    given = parameters(settings, Path("/models"), 28080)
    assert (given.n_batch, given.n_ubatch, given.n_gpu_layers) == (1024, 256, 999)
    assert given.flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_ENABLED"
    assert (given.cache_type_k.name, given.cache_type_v.name) == (
        *("GGML_TYPE_Q8_0", "GGML_TYPE_Q4_0"),
    )
    assert given.tensor_split[:3] == [2.0, 1.5, 0.0]
    assert (given.kv_unified, given.mmproj_use_gpu) == (False, False)
    assert (given.image_max_tokens, given.n_ctx_checkpoints) == (768, 4)
    assert given.cache_ram_mib == -1
    pattern, _, place = given.tensor_buft_overrides.rpartition("=")
    assert place == "CPU"
    assert re.search(pattern, "blk.2.ffn_gate_exps.weight")
    assert not re.search(pattern, "blk.3.ffn_gate_exps.weight")
    assert not re.search(pattern, "blk.2.ffn_gate.weight")


def test_what_is_left_out_is_left_to_llama_cpp() -> None:
    config = {"name": "a", "parameters": {"model": "a.gguf"}, "options": ["cpu_moe:true"]}
    settings = llama_settings(config, None)
    given, usual = parameters(settings, Path("/models"), 1), xllamacpp.CommonParams()
    for key in ("cache_ram_mib", "n_ctx_checkpoints", "image_min_tokens", "image_max_tokens"):
        assert getattr(given, key) == getattr(usual, key)
    assert given.kv_unified  # LocalAI's default, not llama.cpp's
    assert re.match(given.tensor_buft_overrides.removesuffix("=CPU"), "blk.77.ffn_up_exps.weight")


def prompt(template: str, messages: list[dict[str, str]]) -> str:
    return jinja2.Environment(autoescape=False).from_string(template).render(messages=messages)  # noqa: S701


def test_the_prompt_is_the_one_localai_builds() -> None:
    text = rendered(LLAVA)["models/llava.tmpl"].content
    template = jinja_chat_template(text, ROLES, "\n")
    messages = [
        {"role": "system", "content": "短く。"},
        {"role": "user", "content": "<image>何？"},
        {"role": "assistant", "content": "円。"},
        {"role": "user", "content": "色は？"},
    ]
    assert prompt(template, messages) == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions.\n"
        "SYSTEM: 短く。\nUSER: <image>何？\nASSISTANT: 円。\nUSER: 色は？\nASSISTANT:"
    )


plain = st.text().filter(lambda t: "{{" not in t and not t.endswith("{") and not t.startswith("}"))


@given(plain, plain, st.text(), st.text())
def test_any_text_around_the_input_arrives_unchanged(
    head: str, tail: str, prefix: str, content: str
) -> None:
    template = jinja_chat_template(head + "{{.Input}}" + tail, {"user": prefix}, "\n")
    found = prompt(template, [{"role": "user", "content": content}])
    assert found == head + prefix + content + tail


@pytest.mark.parametrize(
    "text", ["{{.Prompt}}", "{{if .SystemPrompt}}x{{end}}{{.Input}}", "no input"]
)
def test_a_template_that_cannot_be_expressed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"more than text and \{\{.Input\}\}"):
        jinja_chat_template(text, ROLES, "\n")
