"""A pair in the real llama.cpp, over HTTP, on one thread. Needs xllamacpp.

One thread, because two on busy cores wait for each other in a spin that costs seconds.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import xllamacpp
from PIL import Image


@dataclass(frozen=True)
class Reply:
    """An answer, why it ended, and how long it took in milliseconds."""

    text: str
    finish_reason: str
    ms: float
    logprobs: dict[int, float]


class Served:
    """A running server; it lives as long as this object."""

    def __init__(self, text: Path, projector: Path, *, jinja: bool = True) -> None:
        began = time.perf_counter()
        params = xllamacpp.CommonParams()
        params.model.path, params.mmproj.path = str(text), str(projector)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.n_ctx, params.n_parallel = 2048, 1
        params.n_gpu_layers, params.mmproj_use_gpu = 0, False
        params.use_jinja, params.verbosity, params.warmup = jinja, 0, False
        params.fit_params = False  # nothing to fit: it would load the files twice
        self._server = xllamacpp.Server(params)
        self.load_ms = (time.perf_counter() - began) * 1000
        self._url = str(self._server.listening_address)
        self._session = requests.Session()

    def chat(
        self, content: str | list[dict[str, Any]], *, system: str | None = None, top: int = 0
    ) -> Reply:
        """One question at temperature 0; `top` asks for that many logprobs of the first token."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return self.converse(messages, top=top)

    def converse(self, messages: list[dict[str, Any]], *, top: int = 0) -> Reply:
        """The answer to a whole conversation; see `chat`."""
        body: dict[str, Any] = {"messages": messages, "temperature": 0, "max_tokens": 48}
        body["cache_prompt"] = False
        if top:
            body |= {"logprobs": True, "top_logprobs": top, "max_tokens": 1}
        began = time.perf_counter()
        choice = self._post("/v1/chat/completions", body)["choices"][0]
        ms = (time.perf_counter() - began) * 1000
        tops = choice["logprobs"]["content"][0]["top_logprobs"] if top else []
        return Reply(
            choice["message"]["content"] or "",
            choice["finish_reason"],
            ms,
            {one["id"]: one["logprob"] for one in tops},
        )

    def complete(self, prompt: str, image: Image.Image | None = None) -> Reply:
        """A raw prompt, as LocalAI renders it; `<__media__>` stands for the picture."""
        body: dict[str, Any] = {"temperature": 0, "n_predict": 48, "cache_prompt": False}
        if image is None:
            body["prompt"] = prompt
        else:
            marker = self.marker()
            body["prompt"] = {
                "prompt_string": prompt.replace("<__media__>", marker),
                "multimodal_data": [base64.b64encode(png(image)).decode()],
            }
        began = time.perf_counter()
        answer = self._post("/completion", body)
        ms = (time.perf_counter() - began) * 1000
        reason = "stop" if answer["stop_type"] == "eos" else str(answer["stop_type"])
        return Reply(answer["content"], reason, ms, {})

    def marker(self) -> str:
        """What stands for a picture in raw prompts; random for every server."""
        return str(self._session.get(f"{self._url}/props", timeout=30).json()["media_marker"])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._session.post(self._url + path, json=body, timeout=60)
        if not response.ok:
            raise RuntimeError(f"{path}: HTTP {response.status_code}: {response.text[:500]}")
        return response.json()


def with_image(image: Image.Image, question: str, *, first: bool = True) -> list[dict[str, Any]]:
    """Message content: picture, then question, or the other way round."""
    uri = "data:image/png;base64," + base64.b64encode(png(image)).decode()
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": uri}}]
    if question:
        parts.insert(1 if first else 0, {"type": "text", "text": question})
    return parts


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    with io.BytesIO() as file:
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()


def main(text: str, projector: str) -> None:
    """Print how long a pair takes to load, in milliseconds, and end at once."""
    served = Served(Path(text), Path(projector))
    sys.stdout.write(f"{served.load_ms}\n")
    sys.stdout.flush()
    os._exit(0)  # xllamacpp may wait for its own threads for ever
