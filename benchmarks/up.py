"""`up`: with nothing to do against docker-compose, and how long it lingers after the last answer.

    DOCKER_HOST=... python benchmarks/up.py [PATH_OF_LLMCTL]

Needs a Docker Engine, docker-compose (Debian's package, or the plugin of `docker compose`), and builds
the test images where they are missing; the services are the real LiteLLM proxy and the stand-in of
LocalAI.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import docker
import requests
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.stack import GATEWAY_PORT, Stack, workbench
from tests.world import images

RUNS = 11
STARTS = 5
# An installation as users have it (`pipx install .`), or the one of this environment.
OURS = sys.argv[1] if len(sys.argv) > 1 else str(Path(sys.executable).parent / "llmctl")


def timed(action: Callable[[], object]) -> float:
    """Wall-clock seconds of an action."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def lingering(stack: Stack) -> float:
    """Seconds from the last service's first answer to the return of a first `up`.

    The last service is the gateway; it has answered when a token of the model came through it. Our own
    client asks for one beside `up`, as soon as the gateway is alive.
    """
    stack.ok("down")
    process = subprocess.Popen(
        [OURS, "up", "--output", "quiet"],
        cwd=stack.root,
        env=stack.environment,
        stdout=subprocess.DEVNULL,
    )
    body = {"model": "llava", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    address = f"http://127.0.0.1:{GATEWAY_PORT}/v1/chat/completions"
    while True:
        try:
            if requests.post(address, json=body, timeout=60).ok:
                break
        except requests.RequestException:
            time.sleep(0.005)
    answered = time.perf_counter()
    assert process.wait() == 0
    return time.perf_counter() - answered


def compose_file(stack: Stack) -> Path:
    """A compose file for the same two services, as compose would be given them."""
    engine = docker.from_env().api
    services = {}
    for service in ("localai", "litellm"):
        found = engine.inspect_container(f"{stack.name}-{service}")
        ports = found["HostConfig"]["PortBindings"]
        services[service] = {
            "image": found["Config"]["Image"],
            "command": found["Config"]["Cmd"] if service == "litellm" else None,
            "init": True,
            "restart": "unless-stopped",
            "volumes": [
                f"{m['Source']}:{m['Destination']}" for m in found["Mounts"] if m["Type"] == "bind"
            ],
            "ports": [
                # Beside ours, so that the runs can alternate.
                f"{b['HostIp']}:{int(b['HostPort']) + 1000}:{inner.split('/')[0]}"
                for inner, bindings in ports.items()
                for b in bindings
            ],
        }
        services[service] = {k: v for k, v in services[service].items() if v}
    file = stack.root / "compose" / "docker-compose.yml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"version": "3.7", "services": services}), encoding="utf-8")
    return file


def main() -> None:
    """Print both measurements."""
    compose = [shutil.which("docker-compose") or "docker"]
    if compose == ["docker"]:
        compose.append("compose")
    with closing(docker.from_env(timeout=600)) as client:
        images.ensure(client, say=print)
    with tempfile.TemporaryDirectory() as scratch, workbench() as bench:
        root = Path(scratch, "stack")
        root.mkdir()
        stack = bench.stack(root, "llmctl-bench")
        try:
            stack.ok("up")
            lingered = [lingering(stack) for _ in range(STARTS)]

            def ours() -> None:
                subprocess.run(
                    [OURS, "up", "-o", "quiet"], cwd=root, env=stack.environment, check=True
                )

            file = compose_file(stack)
            theirs_command = [*compose, "-f", str(file), "-p", "bench", "up", "-d"]

            def theirs() -> None:
                subprocess.run(
                    theirs_command, env=stack.environment, check=True, capture_output=True
                )

            ours()
            theirs()
            noop, peer = [], []
            for _ in range(RUNS):
                noop.append(timed(ours))
                peer.append(timed(theirs))
            subprocess.run(
                [*compose, "-f", str(file), "-p", "bench", "down"], check=True, capture_output=True
            )
        finally:
            stack.run("down", "--volumes")
    ours_s, peer_s = statistics.median(noop), statistics.median(peer)
    print(
        f"no-op up, median of {RUNS}: llmctl {1000 * ours_s:.0f} ms, {' '.join(compose)} "
        f"{1000 * peer_s:.0f} ms, ratio {ours_s / peer_s:.2f}"
    )
    print(
        f"from the last service's first answer to the return of up, median of {STARTS}: "
        f"{1000 * statistics.median(lingered):.0f} ms"
    )


if __name__ == "__main__":
    main()
