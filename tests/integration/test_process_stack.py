"""The main job with no Docker, no GPU, no network: real llama.cpp, the real LiteLLM proxy.

As root the whole story runs in a network namespace that has nothing but loopback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from llmctl.core.picture import Colour, Shape, data_uri, draw
from llmctl.engine.supervise import STATE, read_json
from tests.integration.stack import Stack, clean_environment
from tests.world.tiny_model import WITH_PICTURE, WITHOUT_PICTURE, write_pair

GATEWAY_PORT, ENGINE_PORT = 28100, 28180
STACK_FILE = """\
name: llmctl-local
engine: process
models:
  - name: llava
    model: models/ggml-model-q4_k.gguf
    mmproj: models/mmproj-model-f16.gguf
    template: vicuna
    context: 1024
    threads: 1
gateway: {port: 28100}
localai: {port: 28180}
"""
# Run inside the namespace, where the test itself is not.
ASK = """
import json, sys, urllib.request
body, headers = sys.stdin.buffer.read(), {"Content-Type": "application/json"}
request = urllib.request.Request(sys.argv[1], body, headers)
print(json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["message"]["content"])
"""


@pytest.fixture(scope="module")
def stack(offline: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("local")
    (root / "models").mkdir()
    write_pair(root / "models")
    # An engine that nobody may reach proves that none is used.
    environment = clean_environment() | {"DOCKER_HOST": "unix:///nowhere.sock"}
    found = Stack(
        root, "llmctl-local", environment, "", f"http://127.0.0.1:{GATEWAY_PORT}", offline
    )
    found.configure(STACK_FILE)
    yield found
    found.run("down")


def ask(stack: Stack, url: str, *, picture: bool) -> str:
    content: list[Any] = [{"type": "text", "text": "この画像には何が写っていますか？"}]
    if picture:
        uri = data_uri(draw(Shape.STAR, Colour.RED))
        content.append({"type": "image_url", "image_url": {"url": uri}})
    body = {"model": "llava", "messages": [{"role": "user", "content": content}]}
    done = subprocess.run(
        [*stack.prefix, sys.executable, "-c", ASK, f"{url}/v1/chat/completions"],
        input=json.dumps(body).encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def state(stack: Stack, service: str) -> dict[str, Any]:
    return read_json(stack.root / ".llmctl" / "processes" / f"llmctl-local-{service}" / STATE)


def test_up_plans_two_processes_and_proves_them(stack: Stack) -> None:
    plan = stack.ok("plan").stdout
    assert "start llama (xllamacpp)" in plan
    assert "network" not in plan
    assert stack.json("up")["endpoint"] == f"http://127.0.0.1:{GATEWAY_PORT}/v1"
    status = stack.json("status")
    assert status["healthy"] is True
    assert [s["service"] for s in status["services"]] == ["llama", "litellm"]


@pytest.mark.parametrize("port", [GATEWAY_PORT, ENGINE_PORT])
@pytest.mark.parametrize("picture", [True, False])
def test_a_picture_reaches_the_model_on_every_hop(stack: Stack, port: int, picture: bool) -> None:
    answer = ask(stack, f"http://127.0.0.1:{port}", picture=picture)
    assert answer == (WITH_PICTURE if picture else WITHOUT_PICTURE)


def test_the_smoke_test_passes(stack: Stack) -> None:
    assert stack.json("smoke-test")["ok"] is True


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = state(stack, "llama"), state(stack, "litellm")
    assert stack.json("up")["changed"] == []
    assert (state(stack, "llama"), state(stack, "litellm")) == before


def test_a_changed_setting_replaces_one_process(stack: Stack) -> None:
    before = state(stack, "litellm")["child"], state(stack, "llama")["child"]
    stack.configure(STACK_FILE.replace("threads: 1", "threads: 2"))
    changed = stack.json("up")["changed"]
    assert "replace llama: files models/llava.yaml changed" in changed
    after = state(stack, "litellm")["child"], state(stack, "llama")["child"]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_crashed_engine_comes_back_by_itself(stack: Stack) -> None:
    child = state(stack, "llama")["child"]["pid"]
    os.kill(child, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    stack.json("up")  # waits until it answers again
    assert state(stack, "llama")["child"]["pid"] != child
    assert ask(stack, f"http://127.0.0.1:{GATEWAY_PORT}", picture=True) == WITH_PICTURE


def test_logs_show_both_services(stack: Stack) -> None:
    assert "llava answers at http://127.0.0.1:28180" in stack.ok("logs", "llama").stdout
    assert stack.ok("logs", "litellm", "--tail", "3").stdout.strip()


def test_down_leaves_no_process(stack: Stack) -> None:
    pids = [
        state(stack, s)[who]["pid"] for s in ("llama", "litellm") for who in ("child", "supervisor")
    ]
    stack.ok("down")
    alive = [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]
    assert alive == []
    assert stack.json("down")["changed"] == []


def test_a_gateway_with_a_key_keeps_it_out_of_arguments_and_files(stack: Stack) -> None:
    stack.configure(STACK_FILE.replace("{port: 28100}", "{port: 28100, auth: key}"))
    stack.ok("up")
    key = stack.ok("key").stdout.strip()
    for service in ("llama", "litellm"):
        process = psutil.Process(state(stack, service)["child"]["pid"])
        assert key not in " ".join(process.cmdline())
        assert key not in stack.ok("logs", service).stdout
    for path in (stack.root / ".llmctl" / "processes").rglob("*.json"):
        assert key not in path.read_text(encoding="utf-8")
    assert stack.json("smoke-test")["ok"] is True
    stack.ok("down")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("gateway: {host: [127.0.0.1, host-gateway]}\n", "listens on one address"),
        ("gpu: nvidia\n", "runs on the CPU"),
        ("localai: {port: 28000}\n", "is also the port of a model"),
    ],
)
def test_what_processes_cannot_do_is_said(stack: Stack, changed: str, message: str) -> None:
    stack.configure("engine: process\nmodels: [{model: models/ggml-model-q4_k.gguf}]\n" + changed)
    done = stack.run("plan")
    assert done.returncode == 3
    assert message in done.stderr


def test_what_llama_cpp_cannot_be_told_is_said(stack: Stack) -> None:
    stack.configure(
        "engine: process\nmodels: [{model: models/ggml-model-q4_k.gguf, name: llava}]\n"
    )
    (stack.root / "templates").mkdir()
    own = stack.ok("config", "templates", "localai-model.yaml.j2").stdout
    changed = own.replace("mmap:", 'main_gpu: "1"\nmmap:')
    (stack.root / "templates" / "localai-model.yaml.j2").write_text(changed, encoding="utf-8")
    assert "models/llava.yaml: main_gpu has no counterpart" in stack.ok("plan").stderr
