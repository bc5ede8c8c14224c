"""The program the process engine runs for one model: llama.cpp's own OpenAI-compatible server.

    python -m llmctl.llama_server --config models/NAME.yaml --port N

It reads the rendered LocalAI configuration, starts the server of the `xllamacpp` wheel on 127.0.0.1,
and ends on SIGTERM. Readiness is the server's own GET /health.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from llmctl import files
from llmctl.core.llama_settings import LlamaSettings, llama_settings
from llmctl.core.localai_config import check_model_config, load_strict
from llmctl.errors import LlmctlError


def read_settings(config: Path) -> LlamaSettings:
    """The settings of a rendered models/NAME.yaml and the .tmpl it names.

    Raises:
        ConfigError: it is missing, or LocalAI would misread it.
    """
    text = files.read_text(config) or ""
    template = config.with_suffix(".tmpl")
    prompt = files.read_text(template)
    check_model_config(text, str(config), has_template=prompt is not None)
    return llama_settings(load_strict(text), prompt)


def parameters(settings: LlamaSettings, models: Path, port: int) -> Any:
    """llama.cpp's parameters for the settings; `models` is the directory the paths start from."""
    import xllamacpp

    flash = {
        "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }
    p = xllamacpp.CommonParams()
    p.model.path = str(models / settings.model)
    if settings.mmproj:
        p.mmproj.path = str(models / settings.mmproj)
    p.model_alias = {settings.name}
    p.hostnames = ["127.0.0.1"]
    p.port = port
    p.n_ctx = settings.context
    p.n_batch, p.n_ubatch = settings.batch, settings.ubatch
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = settings.threads
    p.n_gpu_layers = settings.gpu_layers
    p.n_parallel = settings.parallel
    p.kv_unified = settings.kv_unified
    p.swa_full = settings.swa_full
    p.mmproj_use_gpu = settings.projector_on_gpu
    _divide(p, settings)
    p.flash_attn_type = flash[settings.flash_attention]
    p.load_mode = _load_mode(settings)
    for key in ("cache_type_k", "cache_type_v"):
        name = getattr(settings, key)
        if name:
            setattr(p, key, getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}"))
    for key, value in (
        ("cache_ram_mib", settings.cache_ram_mib),
        ("n_ctx_checkpoints", settings.ctx_checkpoints),
        ("image_min_tokens", settings.image_min_tokens),
        ("image_max_tokens", settings.image_max_tokens),
    ):
        if value is not None:
            setattr(p, key, value)
    # Every setting is given; fitting again would only load the model twice.
    p.fit_params = False
    p.use_jinja = True
    if settings.chat_template is not None:
        p.chat_template = settings.chat_template
    p.antiprompt = list(settings.stop)
    for key, number in settings.sampling:
        setattr(p.sampling, {"temperature": "temp"}.get(key, key), number)
    p.endpoint_metrics = False
    p.ui = False
    # Only from here on does it say how large its buffers are; prompts are not logged at 4.
    p.verbosity = 4
    return p


def _divide(p: Any, settings: LlamaSettings) -> None:
    """Say what of the weights goes where."""
    shares = settings.tensor_split
    if shares:
        places = len(p.tensor_split)
        p.tensor_split = [*shares, *[0.0] * (places - len(shares))][:places]
    if settings.experts_on_cpu != 0:
        blocks = range(settings.experts_on_cpu or 0)
        block = "|".join(map(str, blocks)) if blocks else r"\d+"
        p.tensor_buft_overrides = rf"blk\.({block})\.ffn_(up|down|gate)_(ch|)exps=CPU"


def _load_mode(settings: LlamaSettings) -> Any:
    import xllamacpp

    modes = xllamacpp.llama_load_mode
    if settings.mlock:
        return modes.LLAMA_LOAD_MODE_MLOCK
    return modes.LLAMA_LOAD_MODE_MMAP if settings.mmap else modes.LLAMA_LOAD_MODE_NONE


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m llmctl.llama_server")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        settings = read_settings(arguments.config)
    except LlmctlError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}")
    for key in settings.unmapped:
        print(f"not mapped to llama.cpp's server: {key}", flush=True)  # noqa: T201 - our log
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(settings, arguments.config.parent, arguments.port))
    except RuntimeError as error:
        sys.exit(f"llama.cpp could not load the model: {error}")
    print(f"{settings.name} answers at {server.listening_address}", flush=True)  # noqa: T201
    ended.wait()
    # Taking the server down in order hangs when its loop has not begun yet; nothing is left to save.
    os._exit(0)


if __name__ == "__main__":
    main()
