"""Who reaches the gateway, with which key, and where the key is not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
import requests

from tests.integration.stack import GATEWAY_PORT, Stack, Workbench
from tests.world.images import LITELLM

pytestmark = pytest.mark.docker

# Run inside a container that has Python and nothing else of ours.
ASK = """
import json, sys, urllib.request
body = {"model": "llava", "messages": [{"role": "user", "content": "こんにちは"}], "max_tokens": 4}
request = urllib.request.Request(
    sys.argv[1] + "/v1/chat/completions",
    data=json.dumps(body).encode(),
    headers={"Content-Type": "application/json", "Authorization": "Bearer " + sys.argv[2]},
)
print(json.load(urllib.request.urlopen(request, timeout=60))["object"])
"""


@pytest.fixture(scope="module")
def stack(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that other containers reach, and that therefore asks for a key."""
    found = workbench.stack(tmp_path_factory.mktemp("access"), "llmctl-access")
    found.configure("gateway:\n  host: [127.0.0.1, host-gateway]\n")
    found.ok("up")
    yield found
    found.run("down", "--volumes")


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.ok("key").stdout.strip()


def models(stack: Stack, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.get(f"{stack.gateway}/v1/models", headers=headers, timeout=30).status_code


def test_the_key_opens_and_nothing_else_does(stack: Stack, key: str) -> None:
    assert models(stack, key) == 200
    assert models(stack, None) >= 400
    assert models(stack, "sk-1234") >= 400


def test_up_says_how_to_send_the_key(stack: Stack, key: str) -> None:
    done = stack.ok("up")
    assert key not in done.stdout + done.stderr
    curl = done.stdout[done.stdout.index("curl") : done.stdout.index("next:")]
    assert "llmctl key)" in curl
    pasted = subprocess.run(
        ["sh", "-ec", curl], cwd=stack.root, env=stack.environment, capture_output=True, check=True
    )
    assert json.loads(pasted.stdout)["choices"][0]["message"]["content"] == "OK"


def test_the_key_is_in_one_file_only_and_nobody_else_reads_it(stack: Stack, key: str) -> None:
    file = stack.root / ".llmctl" / "gateway.key"
    assert file.stat().st_mode & 0o777 == 0o600
    for path in stack.root.rglob("*"):
        if path.is_file() and path != file and path.suffix != ".gguf":
            assert key not in path.read_text(encoding="utf-8", errors="replace"), path


def test_the_key_shows_nowhere_in_docker_or_in_the_logs(stack: Stack, key: str) -> None:
    for name in stack.containers():
        assert key not in stack.docker("inspect", name)
        assert key not in stack.docker("top", name) if "backend" not in name else True
        assert key not in stack.ok("logs", name.removeprefix("llmctl-access-")).stdout
    for command in (("plan",), ("status",), ("config", "show")):
        assert key not in stack.ok(*command, "--output", "json").stdout


def test_the_smoke_test_uses_the_key(stack: Stack) -> None:
    assert stack.json("smoke-test")["ok"] is True


def test_another_container_reaches_it_as_host_docker_internal(stack: Stack, key: str) -> None:
    answer = stack.docker(
        "run",
        "--rm",
        "--add-host=host.docker.internal:host-gateway",
        "--entrypoint=python3",
        LITELLM,
        "-c",
        ASK,
        f"http://host.docker.internal:{GATEWAY_PORT}",
        key,
    )
    assert answer == "chat.completion"


def test_a_new_key_replaces_the_gateway_alone(stack: Stack, key: str) -> None:
    before = stack.ids()
    (stack.root / ".llmctl" / "gateway.key").unlink()
    plan = stack.run("plan").stdout
    assert "replace litellm: secrets gateway.key changed" in plan
    stack.ok("up")
    after = stack.ids()
    assert {name for name in after if after[name] != before[name]} == {"llmctl-access-litellm"}
    assert models(stack, key) >= 400
    assert models(stack, stack.ok("key").stdout.strip()) == 200


def test_an_open_gateway_has_no_key_to_print(stack: Stack) -> None:
    done = stack.run("key", "--set", "gateway.auth=open", "--output", "json")
    assert done.returncode == 3
    assert "this gateway is open" in json.loads(done.stdout)["error"]
