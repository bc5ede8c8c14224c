"""The guide's own steps on a real Docker Engine, with the real LiteLLM proxy and real llama.cpp.

LocalAI's image and the public hub are stand-ins (tests/world); behind the guide's file names the hub
serves the canary, so that answers prove what was seen and not only that something came back. The
commands are run as a user runs them, as processes; the examples of README.md as they stand there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.picture import Colour, Shape, data_uri, draw
from tests.integration.stack import PICTURE_PORT, Stack, Workbench
from tests.peer import Peer, Response, peer

pytestmark = pytest.mark.docker
README = Path(__file__).parents[2] / "README.md"
SEEN_EN, SEEN_JA = "A red circle.", "赤い円です。"
NOT_SEEN_EN, NOT_SEEN_JA = "There is no image.", "画像がありません。"


@pytest.fixture(scope="module")
def stack(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the whole story; each test goes on where the one before it ended."""
    found = workbench.stack(tmp_path_factory.mktemp("stack"))
    yield found
    found.run("down", "--volumes")


def test_pull_puts_both_files_where_the_guide_has_them(stack: Stack, workbench: Workbench) -> None:
    result = stack.json("models", "pull", "llava")
    assert result
    for name in ("ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"):
        assert (stack.root / "models" / name).stat().st_size > 1000
    workbench.hub.forget()
    stack.ok("models", "pull", "llava")
    assert not workbench.hub.requests


def test_render_writes_the_three_files(stack: Stack) -> None:
    stack.ok("config", "render")
    for path in ("models/llava.yaml", "models/llava.tmpl", "litellm/litellm.yaml"):
        assert (stack.root / path).is_file()
    stack.ok("config", "render", "--check")


def test_up_brings_the_stack_to_a_proven_answer(stack: Stack) -> None:
    result = stack.json("up")
    assert result["endpoint"] == f"{stack.gateway}/v1"
    assert result["needs_key"] is False
    status = stack.json("status")
    assert status["healthy"] is True
    assert status["models"] == [{"name": "llava", "loaded": True}]
    # What llama.cpp said of its buffers while it loaded, beside the plan.
    memory = status["memory"]["llava"]
    found = {line["term"]: (line["planned"], line["measured"]) for line in memory["lines"]}
    assert found["kv_cache"][0] == found["kv_cache"][1] > 0
    assert abs(found["weights"][1] - found["weights"][0]) < 10_486  # printed in hundredths of a MiB
    assert 0.9 < memory["ratio"] < 1.1


@pytest.mark.parametrize(
    ("question", "url", "expected"),
    [
        ("What is in this picture?", "http", SEEN_EN),
        ("この画像には何が写っていますか？", "http", SEEN_JA),
        ("この画像には何が写っていますか？", "data", SEEN_JA),
    ],
)
def test_the_guides_curl(
    stack: Stack, workbench: Workbench, question: str, url: str, expected: str
) -> None:
    picture = draw_any()
    with pictures_at(workbench, picture) as found:
        where = f"{found.url}/picture.png" if url == "http" else data_uri(picture)
        body = {
            "model": "llava",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": question},
                        {"type": "image_url", "image_url": {"url": where}},
                    ],
                }
            ],
        }
        answer = curl(f"{stack.gateway}/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] == expected
    assert answer["model"] == "llava"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is in this picture?", NOT_SEEN_EN),
        ("この画像には何が写っていますか？", NOT_SEEN_JA),
    ],
)
def test_without_a_picture_the_model_says_so(stack: Stack, question: str, expected: str) -> None:
    body = {"model": "llava", "messages": [{"role": "user", "content": question}]}
    answer = curl(f"{stack.gateway}/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize("url", ["http", "data"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client(stack: Stack, workbench: Workbench, url: str, stream: bool) -> None:
    from openai import OpenAI

    picture = draw_any()
    with (
        pictures_at(workbench, picture) as found,
        OpenAI(base_url=f"{stack.gateway}/v1", api_key="none") as client,
    ):
        where = f"{found.url}/picture.png" if url == "http" else data_uri(picture)
        content: Any = [
            {"type": "text", "text": "どんな画像ですか？"},
            {"type": "image_url", "image_url": {"url": where}},
        ]
        messages: Any = [{"role": "user", "content": content}]
        if stream:
            chunks = client.chat.completions.create(model="llava", messages=messages, stream=True)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        else:
            reply = client.chat.completions.create(model="llava", messages=messages)
            text = reply.choices[0].message.content or ""
    assert text == SEEN_JA


def test_the_examples_of_the_readme(stack: Stack, workbench: Workbench) -> None:
    picture = draw_any()
    (stack.root / "picture.png").write_bytes(picture)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    calls = [
        (kind, text) for kind, text in blocks if "chat/completions" in text or "openai" in text
    ]
    assert len(calls) >= 3
    with pictures_at(workbench, picture) as found:
        for kind, text in calls:
            here = text.replace("http://localhost:28000", stack.gateway)
            here = re.sub(r"https://[\w./-]+\.jpg", f"{found.url}/picture.png", here)
            command = ["sh", "-ec", here] if kind == "sh" else [sys.executable, "-c", here]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                cwd=stack.root,
                check=False,
                env=stack.environment,
            )
            assert done.returncode == 0, done.stderr
            assert SEEN_EN in done.stdout or SEEN_JA in done.stdout, text


def test_the_smoke_test_proves_sight_on_both_hops(stack: Stack) -> None:
    report = stack.json("smoke-test")
    assert report["ok"] is True
    assert {check["hop"] for check in report["checks"]} == {"engine", "gateway"}
    assert {check["language"] for check in report["checks"]} >= {"en", "ja"}
    assert any(check["streaming"] for check in report["checks"])


def test_a_second_up_touches_no_container(stack: Stack) -> None:
    before = stack.containers()
    assert stack.json("up")["changed"] == []
    assert stack.containers() == before
    assert stack.run("plan", "--exit-code").returncode == 0


def test_a_changed_setting_replaces_one_container_and_says_why(stack: Stack) -> None:
    before = stack.containers()
    plan = stack.run("plan", "--exit-code", "--set", "context=768")
    assert plan.returncode == 4
    assert "replace localai: files /models/llava.yaml changed" in plan.stdout
    result = stack.json("up", "--set", "context=768")
    assert [text for text in result["changed"] if text.startswith("replace")]
    after = stack.containers()
    changed = {name for name in after if after[name] != before.get(name)}
    # The gateway's file tells clients the context, so it is replaced as well; nothing else is.
    assert changed == {f"{stack.name}-localai", f"{stack.name}-litellm"}
    assert set(after) == set(before)
    stack.json("up")


def test_a_setting_of_one_service_leaves_the_other_alone(stack: Stack) -> None:
    before = stack.containers()
    stack.json("up", "--set", "threads=1")
    after = stack.containers()
    assert {name for name in after if after[name] != before[name]} == {f"{stack.name}-localai"}


def test_a_change_that_fails_leaves_the_old_container_running(stack: Stack) -> None:
    stack.json("up")
    before = stack.ids()
    result = stack.run("up", "--set", f"litellm.image={stack.localai_image}", "--timeout", "20")
    assert result.returncode == 5
    assert "llmctl-e2e-litellm died while it started" in result.stderr
    assert "the previous container runs again" in result.stderr
    assert stack.ids() == before
    assert stack.json("up")["changed"] == []


def test_a_service_that_was_killed_comes_back(stack: Stack) -> None:
    stack.docker("kill", f"{stack.name}-localai")
    stack.docker("stop", f"{stack.name}-litellm")
    stack.json("up")
    assert stack.json("status")["healthy"] is True


def test_logs_tail(stack: Stack) -> None:
    lines = stack.ok("logs", "litellm", "--tail", "5").stdout.splitlines()
    assert 1 <= len(lines) <= 5


def test_down_leaves_nothing_of_ours_and_everything_of_others(
    stack: Stack, workbench: Workbench
) -> None:
    with workbench.bystander() as other:
        stack.ok("down", "--volumes")
        for kind in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q")):
            left = stack.docker(*kind, "--filter", f"label=llmctl.stack={stack.name}")
            assert left == ""
        other.reload()
        assert other.status == "running"
    assert (stack.root / "models" / "ggml-model-q4_k.gguf").exists()
    assert stack.json("down")["changed"] == []


def draw_any() -> bytes:
    return draw(Shape.CIRCLE, Colour.RED, size=224)


def pictures_at(workbench: Workbench, picture: bytes) -> AbstractContextManager[Peer]:
    """A web server that containers reach, with one picture at every path."""
    return peer(lambda _request: Response(200, picture), workbench.host_gateway, PICTURE_PORT)


def curl(url: str, body: Any) -> Any:
    done = subprocess.run(
        ["curl", "-s", url, "-H", "Content-Type: application/json", "-d", "@-"],
        input=json.dumps(body, ensure_ascii=False).encode(),
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)
