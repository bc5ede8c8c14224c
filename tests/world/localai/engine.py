"""Models in memory (pkg/model/loader.go, core/backend/options.go, grpc-server.cpp).

LocalAI starts one backend process a model and talks gRPC to it; here a loaded model is one
llama.cpp server in this process, reached over HTTP on a loopback port that it chooses itself.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import urllib.parse
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import xllamacpp

from tests.world.localai import backends
from tests.world.localai.errors import ApiError, CooldownError, LoadError, log_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world.localai.config import ModelConfig
    from tests.world.localai.settings import Settings

log = logging.getLogger("localai")

_MAX_COOLDOWN_S = 300.0
_DEFAULT_CONTEXT = 4096
_DEFAULT_BATCH = 512
_FLASH_ATTENTION = {
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "enabled": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "disabled": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_CACHE_TYPES = {
    name: getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}


class LoadedModel:
    """A llama.cpp server and how to reach it."""

    def __init__(self, config: ModelConfig, server: Any, *, sees: bool, said: str) -> None:
        self.config = config
        self.sees = sees
        self.said = said  # by the backend while it loaded, on its stderr
        self._server = server  # destroying it stops it
        self._address = urllib.parse.urlsplit(server.listening_address).netloc
        # A server destroyed before its loop runs never ends (seen with this version): wait until it
        # answers.
        deadline = time.monotonic() + 60
        while self.get("/health")[0] != http.client.OK:
            if time.monotonic() > deadline:
                raise LoadError("grpc service not ready")
            time.sleep(0.01)
        self.media_marker: str = self.get("/props")[1].get("media_marker", "")

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        with self._answer("GET", path, None) as answer:
            return answer.status, json.loads(answer.read())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON of a POST; raises ``ApiError`` 500 with llama.cpp's message when it refuses."""
        with self._answer("POST", path, body) as answer:
            result: dict[str, Any] = json.loads(answer.read())
            if answer.status != http.client.OK:
                raise _refusal(result)
            return result

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON events of a streamed POST; raises ``ApiError`` like ``post``."""
        with self._answer("POST", path, body) as answer:
            if answer.status != http.client.OK:
                raise _refusal(json.loads(answer.read()))
            for raw in answer:
                line = raw.strip()
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    yield json.loads(line.removeprefix(b"data: "))

    @contextmanager
    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, timeout=600)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            yield connection.getresponse()
        finally:
            connection.close()


class Loader:
    """Loads a model when it is first asked for; refuses to retry too soon after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._loaded: dict[str, LoadedModel] = {}
        self._failures: dict[str, int] = {}
        self._cooldown_ends: dict[str, float] = {}

    def get(self, config: ModelConfig) -> LoadedModel:
        """The model, loaded now if need be. Raises ``LoadError``, and soon after ``CooldownError``."""
        with self._lock:
            if config.name in self._loaded:
                return self._loaded[config.name]
            remaining = self._cooldown_ends.get(config.name, 0.0) - time.monotonic()
            if remaining > 0:
                raise CooldownError(config.name, remaining)
            try:
                model = self._load(config)
            except LoadError as error:
                self._failed(config.name)
                log_error("Failed to load model modelID=%s error=%s", config.name, error)
                raise
            self._failures.pop(config.name, None)
            self._loaded[config.name] = model
            return model

    def loaded(self) -> list[LoadedModel]:
        """What is in memory."""
        with self._lock:
            return list(self._loaded.values())

    def unload(self, name: str) -> bool:
        """Drop a model; False when it was not loaded."""
        with self._lock:
            return self._loaded.pop(name, None) is not None

    def _failed(self, name: str) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        wait = min(self._settings.cooldown_s * 2 ** (failures - 1), _MAX_COOLDOWN_S)
        self._cooldown_ends[name] = time.monotonic() + wait

    def _load(self, config: ModelConfig) -> LoadedModel:
        backend = config.get("backend", "")
        if backend and not backends.is_installed(self._settings.backends, backend):
            log_error("Backend not found backend=%s", backend)
            raise LoadError(f"backend not found: {backend}")
        if not backends.installed(self._settings.backends):
            raise LoadError("no backends found")
        params = parameters(config, self._settings)
        with _captured_stderr() as said:
            try:
                server = xllamacpp.Server(params)
            except RuntimeError:
                server = None
        if server is None:
            raise LoadError(_load_failure(params, _errors(said)))
        sees = bool(config.get("mmproj"))
        model = LoadedModel(config, server, sees=sees, said="".join(said))
        log.info("Model loaded modelID=%s backend=%s vision=%s", config.name, backend, sees)
        return model


def parameters(config: ModelConfig, settings: Settings) -> Any:
    """llama.cpp's parameters; settings that LocalAI's backend does not read have no effect."""
    params = xllamacpp.CommonParams()
    params.model.path = str(settings.models / config.parameter("model", ""))
    if config.get("mmproj"):
        params.mmproj.path = str(settings.models / config.get("mmproj"))
    asked = config.get("threads") or settings.threads or os.cpu_count() or 1
    # Two llama.cpp threads that share busy cores spin against each other: seconds for what takes
    # milliseconds. Test machines are small and shared, so the stand-in caps what was asked; the log
    # says both numbers.
    threads = min(asked, settings.max_threads)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    context = config.get("context_size", _DEFAULT_CONTEXT)
    params.n_ctx = max(0, context)  # -1, "as trained", is llama.cpp's 0
    params.n_batch = params.n_ubatch = config.parameter("batch", _DEFAULT_BATCH)
    params.n_gpu_layers = config.get("gpu_layers", 99999999)
    params.n_parallel = int(
        config.option("parallel", "n_parallel") or os.environ.get("LLAMACPP_PARALLEL", "1")
    )
    params.kv_unified = True
    params.load_mode = _load_mode(config)
    flash = config.get("flash_attention", "auto")
    if flash in _FLASH_ATTENTION:  # "true" is in no list, so it silently stays automatic
        params.flash_attn_type = _FLASH_ATTENTION[flash]
    for key in ("cache_type_k", "cache_type_v"):
        if config.get(key) in _CACHE_TYPES:
            setattr(params, key, _CACHE_TYPES[config.get(key)])
    params.use_jinja = True
    params.verbosity = 4  # as LocalAI's backend, which passes on what llama.cpp says
    log.info(
        "Loading model modelID=%s context=%d threads=%d (asked %d) parallel=%d batch=%d flash=%s",
        config.name,
        params.n_ctx,
        threads,
        asked,
        params.n_parallel,
        params.n_batch,
        flash,
    )
    return params


def _load_mode(config: ModelConfig) -> Any:
    modes = xllamacpp.llama_load_mode
    if config.get("mmlock", False):
        return modes.LLAMA_LOAD_MODE_MLOCK
    if config.get("mmap", True):
        return modes.LLAMA_LOAD_MODE_MMAP
    return modes.LLAMA_LOAD_MODE_NONE


def _load_failure(params: Any, errors: list[str]) -> str:
    text = f"Failed to load model: {params.model.path}"
    if params.mmproj.path:
        text += f" (with mmproj: {params.mmproj.path})"
    detail = "; ".join(errors)
    text += f". Error: {detail}" if detail else ". Model file may not exist or be invalid."
    return f"could not load model: rpc error: code = Internal desc = {text}"


def _refusal(answer: dict[str, Any]) -> ApiError:
    message = answer.get("error", {}).get("message", json.dumps(answer))
    return ApiError(500, f"rpc error: code = Internal desc = {message}")


def _errors(said: list[str]) -> list[str]:
    """llama.cpp's own error lines, each once."""
    lines = re.findall(r"^[\d.]+ E (.*\S)", "".join(said), re.MULTILINE)
    return list(dict.fromkeys(re.sub(r"\s+", " ", line) for line in lines))


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What llama.cpp writes to file descriptor 2; its errors are passed on afterwards.

    Descriptor-wide, so a line that another thread logs meanwhile is passed on a moment late.
    """
    said: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        os.dup2(capture.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            capture.seek(0)
            text = capture.read().decode(errors="replace")
            said.append(text)
            # LocalAI logs its backend's output at debug; only errors reach a plain log.
            quiet = re.sub(r"^[\d.]+ [IWDT] .*\n?|^\s.*\n?", "", text, flags=re.MULTILINE)
            sys.stderr.write(quiet)
            sys.stderr.flush()
