"""What a user can run into, on the real engine: the message names it, and a command mends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.stack import GATEWAY_PORT, LLAVA_REPO, Stack, Workbench
from tests.world.hub import Repo
from tests.world.tiny_model import write_pair

pytestmark = pytest.mark.docker


@pytest.fixture
def stack(workbench: Workbench, tmp_path: Path) -> Iterator[Stack]:
    found = workbench.stack(tmp_path, "llmctl-errors")
    yield found
    found.run("down", "--volumes")


def error(stack: Stack, *arguments: str, code: int, **environment: str) -> str:
    done = stack.run(*arguments, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "next:" in done.stderr, done.stderr
    return done.stderr


def test_no_docker(stack: Stack) -> None:
    text = error(stack, "up", code=1, DOCKER_HOST=f"unix://{stack.root}/none.sock")
    assert "no Docker Engine answers at unix://" in text
    assert not (stack.root / "models").exists()  # nothing was pulled first


def test_a_taken_port_is_found_before_anything_starts(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", GATEWAY_PORT)):
        text = error(stack, "up", code=1)
    assert f"port 127.0.0.1:{GATEWAY_PORT} is taken by" in text
    assert "gateway.port" in text
    assert stack.containers() == {}


def test_a_port_taken_by_a_container_is_named(stack: Stack, workbench: Workbench) -> None:
    with workbench.bystander(ports={"80/tcp": ("127.0.0.1", GATEWAY_PORT)}):
        text = error(stack, "up", code=1)
    assert "is taken by the container llmctl-test-bystander" in text
    assert "docker stop llmctl-test-bystander" in text


def test_an_image_that_cannot_be_had(stack: Stack) -> None:
    text = error(stack, "up", "--set", "localai.image=llmctl-test/nope:1", code=1)
    assert "llmctl-test/nope:1" in text


def test_a_model_nobody_knows(stack: Stack) -> None:
    text = error(stack, "up", "--set", "models=lava", code=3)
    assert "llava" in text
    assert "llmctl models list" in text


def test_no_pull_with_missing_files(stack: Stack) -> None:
    text = error(stack, "up", "--no-pull", code=3)
    assert "ggml-model-q4_k.gguf" in text
    assert "llmctl models pull" in text


def test_a_backend_that_does_not_exist(stack: Stack) -> None:
    text = error(stack, "up", "--set", "localai.backend=lama-cpp", code=1)
    assert "localai-backend failed with exit code 1" in text
    assert "lama-cpp" in text  # the installer's own words


def test_nvidia_asked_for_where_there_is_none(stack: Stack) -> None:
    text = error(stack, "up", "--gpu", "nvidia", code=3)
    assert "--gpu nvidia" in text
    assert "llmctl up --gpu" in text


def test_a_file_edited_by_hand_is_not_touched(stack: Stack) -> None:
    stack.ok("config", "render")
    file = stack.root / "models" / "llava.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("1024", "2048"), encoding="utf-8")
    mine = file.read_bytes()
    text = error(stack, "up", code=3)
    assert "models/llava.yaml: edited by hand" in text
    assert "-context_size: 2048" in text
    assert file.read_bytes() == mine
    assert stack.containers() == {}


@contextmanager
def offering(workbench: Workbench, directory: Path, projector_type: str | None) -> Iterator[None]:
    """The guide's repository with another projector while the block runs."""
    pair = write_pair(directory, projector_type=projector_type)
    files: dict[str, bytes | Path] = {
        "ggml-model-q4_k.gguf": pair.text,
        "mmproj-model-f16.gguf": pair.projector,
    }
    good = workbench.hub.repos[LLAVA_REPO]
    workbench.hub.repos[LLAVA_REPO] = Repo(files)
    try:
        yield
    finally:
        workbench.hub.repos[LLAVA_REPO] = good


def test_a_projector_of_2023_is_repaired(
    stack: Stack, workbench: Workbench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with offering(workbench, tmp_path_factory.mktemp("old"), None):
        done = stack.ok("up")
    assert 'states its projector type now ("mlp")' in done.stderr
    rendered = (stack.root / "models" / "llava.yaml").read_text(encoding="utf-8")
    assert "mmproj-model-f16.repaired.gguf" in rendered


def test_a_projector_that_todays_llama_cpp_refuses(
    stack: Stack, workbench: Workbench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with offering(workbench, tmp_path_factory.mktemp("odd"), "of_tomorrow"):
        text = error(stack, "up", code=3)
        assert 'does not know projectors of type "of_tomorrow"' in text
        assert stack.containers() == {}
        stack.ok("models", "pull", "--force")
        text = error(stack, "up", code=5)
    assert "could not load llava: its projector file states no type" in text
    assert "with mmproj" in text  # the engine's own words are kept


def test_an_interrupted_first_start_is_continued(stack: Stack) -> None:
    import signal
    import subprocess
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "up"],
        cwd=stack.root,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "start litellm" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    before = stack.ids()
    result = stack.json("up")
    assert result["endpoint"]
    after = stack.ids()
    assert before.items() <= after.items()


def test_another_directory_does_not_take_over(
    stack: Stack, workbench: Workbench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stack.ok("up")
    other = workbench.stack(tmp_path_factory.mktemp("other"), stack.name)
    text = error(other, "up", code=3)
    assert f"already runs from {stack.root}" in text
    assert f"llmctl down -C {stack.root}" in text


def test_sight_that_is_lost_fails_the_smoke_test(stack: Stack) -> None:
    """The projector is taken out of LocalAI's configuration: answers stay fluent, HTTP stays 200."""
    (stack.root / "templates").mkdir()
    own = stack.ok("config", "templates", "localai-model.yaml.j2").stdout
    blind = own.replace("mmproj: {{ mmproj | yaml }}", "")
    assert blind != own
    (stack.root / "templates" / "localai-model.yaml.j2").write_text(blind, encoding="utf-8")
    stack.ok("up")
    done = stack.run("smoke-test")
    assert done.returncode == 5
    assert "blind" in done.stdout + done.stderr
