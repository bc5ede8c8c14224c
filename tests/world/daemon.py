"""A private Docker Engine for tests: own network namespace, socket, data root and pid file.

Each daemon lives in a network namespace of its own, for two reasons. A second ``dockerd`` in one
namespace flushes the first one's NAT chain, and a namespace without an uplink proves that nothing
under test needs the internet. Ports that its containers publish therefore exist only inside: run
the tests that use them under ``nsenter --net=/run/netns/NAME`` (``.ci/run`` does).

    python -m tests.world.daemon start --root DIR [--gpu-shim]    prints shell assignments for
    ``eval`` python -m tests.world.daemon stop --root DIR                  stops by pid file,
    removes DIR

Linux and root only; needs ``dockerd`` (Debian: docker.io), ``iptables``, ``ip`` and ``nsenter``.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.world import gpu_shim

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 40.0
_NEEDED = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
# Children of this process, by root: kept so that stop() can reap them.
_children: dict[Path, subprocess.Popen[bytes]] = {}


class DaemonError(RuntimeError):
    """The private daemon could not be started or stopped; the message says why and where its log is."""


@dataclass(frozen=True)
class Daemon:
    """Where one private daemon lives: all follows from ``root``, so another process can find it."""

    root: Path

    @classmethod
    def at(cls, root: Path | str) -> Daemon:
        """The daemon whose files are (or will be) in ``root``, running or not."""
        return cls(Path(root).resolve())

    @property
    def docker_host(self) -> str:
        """Value for ``DOCKER_HOST``."""
        return f"unix://{self.socket}"

    @property
    def socket(self) -> Path:
        """The API socket."""
        return self.root / "docker.sock"

    @property
    def netns(self) -> str:
        """Name of the network namespace, unique to the root."""
        return f"llmctl-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    @property
    def data_root(self) -> Path:
        """Images, containers and volumes."""
        return self.root / "data"

    @property
    def exec_root(self) -> Path:
        """Run-time state, containerd's included."""
        return self.root / "exec"

    @property
    def pid_file(self) -> Path:
        """Written by dockerd itself."""
        return self.root / "dockerd.pid"

    @property
    def log(self) -> Path:
        """dockerd's output."""
        return self.root / "dockerd.log"

    @property
    def gpu(self) -> gpu_shim.GpuShim:
        """The GPU shim's files; meaningful when the daemon was started with ``with_gpu_shim``."""
        return gpu_shim.GpuShim(self.root / "shim")

    def environment(self) -> dict[str, str]:
        """What a test process needs to know about this daemon."""
        found = {"DOCKER_HOST": self.docker_host, "TEST_NETNS": self.netns}
        if self.gpu.hook.exists():
            found["LLMCTL_TEST_GPU_REQUESTS"] = str(self.gpu.requests_file)
        return found

    def pid(self) -> int | None:
        """Process id of the running dockerd; None also for a stale file whose number was reused."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if f"--data-root={self.data_root}" in _cmdline(pid) else None


def start(root: Path | str, *, with_gpu_shim: bool = False) -> Daemon:
    """Start a daemon in ``root`` and return when its API answers; one that runs is returned as is.

    Raises ``DaemonError`` with the end of dockerd's log when it does not come up within a minute.
    """
    daemon = Daemon.at(root)
    if daemon.pid() is not None and _answers(daemon):
        if with_gpu_shim and not daemon.gpu.hook.exists():
            raise DaemonError(
                f"the daemon in {daemon.root} runs without the GPU shim: stop it first"
            )
        return daemon
    _check_host(daemon)
    daemon.root.mkdir(parents=True, exist_ok=True)
    # An empty configuration of our own keeps the host's /etc/docker/daemon.json out.
    (daemon.root / "daemon.json").write_text("{}\n")
    environment = dict(os.environ)
    if with_gpu_shim:
        daemon.gpu.install()
        environment["PATH"] = f"{daemon.gpu.directory}{os.pathsep}{environment['PATH']}"
    if not _netns_path(daemon).exists():
        _run("ip", "netns", "add", daemon.netns)
    _run("ip", "-n", daemon.netns, "link", "set", "lo", "up")
    with daemon.log.open("ab") as log:
        process = subprocess.Popen(
            _command(daemon),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    _children[daemon.root] = process
    came_up = _wait(lambda: _answers(daemon) or process.poll() is not None, START_DEADLINE_S)
    if not came_up or process.poll() is not None:
        stop(daemon.root, remove=False)
        raise DaemonError(f"dockerd did not start; the end of {daemon.log}:\n{_tail(daemon.log)}")
    return daemon


def stop(root: Path | str, *, remove: bool = True) -> None:
    """Stop the daemon of ``root`` by its pid file, delete its namespace and (``remove``) its files.

    Only processes whose command line names this root are signalled. Files are removed only when
    nothing below the root is mounted any more; otherwise ``DaemonError``. Nothing to stop is not an
    error.
    """
    daemon = Daemon.at(root)
    pid = daemon.pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        if not _wait(lambda: daemon.pid() != pid, STOP_DEADLINE_S):
            os.kill(pid, signal.SIGKILL)
            _wait(lambda: daemon.pid() != pid, 5)
    if daemon.root in _children:
        child = _children.pop(daemon.root)
        child.kill()  # has no effect on one that has ended, as it has unless its start failed
        child.wait()
    _end_leftovers(daemon)
    if _netns_path(daemon).exists():
        _run("ip", "netns", "delete", daemon.netns)
    if not _wait(lambda: not _mounts_below(daemon.root), 5):
        for mount in sorted(_mounts_below(daemon.root), key=len, reverse=True):
            subprocess.run(["umount", mount], check=False)
    left = _mounts_below(daemon.root)
    if left:
        raise DaemonError(f"still mounted, so {daemon.root} is left alone: {', '.join(left)}")
    if remove and daemon.root.exists():
        shutil.rmtree(daemon.root)


@contextmanager
def running(root: Path | str, *, with_gpu_shim: bool = False) -> Iterator[Daemon]:
    """A daemon for the time of a ``with`` block; stopped and removed whatever happens inside."""
    try:
        yield start(root, with_gpu_shim=with_gpu_shim)
    finally:
        stop(root)


def _command(daemon: Daemon) -> list[str]:
    # nsenter, not `ip netns exec`: the latter mounts a new /sys, which hides the cgroup tree from
    # dockerd. Address ranges differ per root, so that two daemons' containers are never mistaken
    # for each other in a log.
    block = int(daemon.netns[-2:], 16)
    return [
        "nsenter",
        f"--net={_netns_path(daemon)}",
        shutil.which("dockerd") or "dockerd",
        f"--host={daemon.docker_host}",
        f"--data-root={daemon.data_root}",
        f"--exec-root={daemon.exec_root}",
        f"--pidfile={daemon.pid_file}",
        f"--config-file={daemon.root / 'daemon.json'}",
        f"--bip=172.30.{block}.1/24",
        f"--default-address-pool=base=10.{block}.0.0/16,size=24",
        "--shutdown-timeout=5",
    ]


def _check_host(daemon: Daemon) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise DaemonError("a private dockerd needs Linux and root")
    missing = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise DaemonError(f"missing programs; on Debian: apt-get install {' '.join(missing)}")
    if len(str(daemon.socket)) > 100:  # sun_path holds 108 bytes
        raise DaemonError(f"the path of the socket is too long: {daemon.socket}")


def _answers(daemon: Daemon) -> bool:
    connection = http.client.HTTPConnection("docker", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(str(daemon.socket))
        connection.request("GET", "/_ping")
        with connection.getresponse() as answer:
            return answer.status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _end_leftovers(daemon: Daemon) -> None:
    """After a killed dockerd: end its containers and containerd. An orderly stop leaves none."""
    for state in daemon.exec_root.glob("runtime-runc/moby/*/state.json"):
        pid = json.loads(state.read_text()).get("init_process_pid", 0)
        if pid and str(daemon.data_root) in Path(f"/proc/{pid}/mountinfo").read_text(
            errors="replace"
        ):
            os.kill(pid, signal.SIGKILL)
    ours = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if _belongs(daemon, int(entry.name))
    ]
    for pid in ours:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if not _wait(lambda: not any(_belongs(daemon, pid) for pid in ours), 5):
        raise DaemonError(f"processes of {daemon.root} did not end: {ours}")


def _belongs(daemon: Daemon, pid: int) -> bool:
    """True for containerd, its shims and docker-proxy started with paths below our exec root."""
    arguments = _cmdline(pid)
    program = Path(arguments[0]).name if arguments else ""
    return program.startswith("containerd") and any(
        str(daemon.exec_root) in argument for argument in arguments
    )


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _mounts_below(root: Path) -> list[str]:
    points = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [point for point in points if point.startswith(f"{root}/")]


def _netns_path(daemon: Daemon) -> Path:
    return Path("/run/netns") / daemon.netns


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DaemonError(f"{shlex.join(command)}: {done.stderr.strip()}")


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the module (see the top of this file)."""
    parser = argparse.ArgumentParser(prog="python -m tests.world.daemon")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("start", "stop"):
        command = commands.add_parser(name)
        command.add_argument("--root", required=True, type=Path)
    commands.choices["start"].add_argument("--gpu-shim", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.command == "stop":
            stop(options.root)
        else:
            daemon = start(options.root, with_gpu_shim=options.gpu_shim)
            for name, value in daemon.environment().items():
                sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    except DaemonError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
