"""The repair of old projectors, proven with the real llama.cpp of the process engine."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmctl import http
from llmctl.core.load_errors import explain_load_failure
from tests.world.tiny_model import CHAT_TEMPLATE, WITH_PICTURE, WITHOUT_PICTURE, write_pair

pytest.importorskip("xllamacpp")


def llmctl(stack: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", *arguments, "-C", str(stack)],
        env={k: v for k, v in os.environ.items() if not k.startswith("LLMCTL_")}
        | {"LLMCTL_ENGINE": "process"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(config: Path) -> Iterator[str]:
    """What the process engine runs for a model; its address once it answers."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "llmctl.llama_server", "--config", config, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if "answers at" in line:
                    yield f"http://127.0.0.1:{port}"
                    return
            raise AssertionError("".join(said))
        finally:
            process.kill()


def load_failure(config: Path) -> str:
    """What the same program says of a model that does not load."""
    done = subprocess.run(
        [sys.executable, "-m", "llmctl.llama_server", "--config", config, "--port", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(url: str, content: str | list[dict[str, Any]]) -> str:
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 32}
    reply = http.post_json(f"{url}/v1/chat/completions", body, timeout=60)
    assert reply.ok, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def picture() -> list[dict[str, Any]]:
    data = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(data, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    return [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": uri}},
    ]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack whose owner has an old projector; pulled and rendered."""
    root = tmp_path_factory.mktemp("stack")
    write_pair(
        root / "weights",
        text_name="m.gguf",
        projector_name="mmproj.gguf",
        projector_type=None,
        chat_template=CHAT_TEMPLATE,
    )
    (root / "llmctl.yaml").write_text(
        "models:\n  - name: tiny\n    model: weights/m.gguf\n    mmproj: weights/mmproj.gguf\n"
        "    context: 1024\n",
        encoding="utf-8",
    )
    assert 'states its projector type now ("mlp")' in llmctl(root, "models", "pull")
    llmctl(root, "config", "render")
    return root


def test_the_original_is_refused_by_todays_llama_cpp(stack: Path) -> None:
    rendered = (stack / "models/tiny.yaml").read_text(encoding="utf-8")
    assert rendered.count("tiny/mmproj.repaired.gguf") == 1
    original = rendered.replace("tiny/mmproj.repaired.gguf", "tiny/mmproj.gguf")
    assert (stack / "models/tiny/mmproj.gguf").is_file()
    (stack / "models/unrepaired.yaml").write_text(original, encoding="utf-8")
    words = load_failure(stack / "models/unrepaired.yaml")
    cause, mend = explain_load_failure(words, "")
    assert "unknown projector type" in words
    assert "its projector file states no type" in cause
    assert mend


def test_the_repaired_copy_loads_and_sees(stack: Path) -> None:
    with serving(stack / "models/tiny.yaml") as url:
        assert ask(url, picture()) == WITH_PICTURE
        assert ask(url, "What is this?") == WITHOUT_PICTURE
