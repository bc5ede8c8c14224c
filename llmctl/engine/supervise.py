"""The supervisor that `up` leaves behind for each service: start, restart with back-off, stop.

    python -m llmctl.engine.supervise DIRECTORY

It writes the child's and its own pid together with their start times, so that a pid the system gave
to somebody else is never signalled. SIGTERM ends the child gracefully, then firmly, then itself. Where
the system can (Linux), the child dies with its supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

SPEC, STATE, LOG = "spec.json", "state.json", "log"
GRACE_S = 20
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
STEADY_S = 60.0  # a child that ran this long starts with a fresh back-off
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, {} when there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file as a whole: readers in other processes never see a half."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file)
    Path(aside).replace(path)


def identity(pid: int) -> dict[str, float] | None:
    """A process as pid and start time, None when it has gone."""
    import psutil

    try:
        return {"pid": pid, "start": psutil.Process(pid).create_time()}
    except psutil.Error:
        return None


def same_process(recorded: Any) -> bool:
    """Whether the recorded process still runs, and is not another one with its pid."""
    import psutil

    if not isinstance(recorded, dict):
        return False
    try:
        process = psutil.Process(int(recorded["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # The clock behind a start time is stepped now and then; a reused pid is off by far more.
        return abs(process.create_time() - float(recorded["start"])) < 1.0
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


class Supervisor:
    """Runs one command until it is told to stop.

    Args:
        directory: The service's directory; it is the working directory, so it may be renamed.
    """

    def __init__(self, directory: Path) -> None:
        os.chdir(directory)
        spec = json.loads(read_json(Path(SPEC))["spec"])
        self._command = [*spec["entrypoint"], *spec["command"]]
        self._job = bool(spec["job"])
        self._stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Supervise; returns when the service has ended for good."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        delay = FIRST_DELAY_S
        while True:
            began = time.monotonic()
            code = self._once()
            if self._job or self._told():
                self._write("exited", exit_code=code)
                return
            if time.monotonic() - began > STEADY_S:
                delay = FIRST_DELAY_S
            self._write("restarting", exit_code=code)
            print(f"supervisor: ended with {code}, again in {delay:g} s", flush=True)  # noqa: T201
            until = time.monotonic() + delay
            while time.monotonic() < until and not self._told():
                time.sleep(0.05)
            if self._told():
                self._write("exited", exit_code=code)
                return
            delay = min(2 * delay, LONGEST_DELAY_S)

    def _told(self) -> bool:
        """Whether a signal has asked for the end."""
        return self._stopping

    def _once(self) -> int:
        """Run the command to its end and return its exit code; 127 when it cannot be started."""
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            self._stopping = True
            self._write("exited", exit_code=127, refused=str(error))
            return 127
        self._write("running", started=datetime.now(UTC).isoformat())
        if self._stopping:
            self._stop(signal.SIGTERM, None)
        code = self._child.wait()
        signal.alarm(0)
        # What it started itself goes too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        return 128 - code if code < 0 else code

    def _write(self, state: str, **more: Any) -> None:
        known = read_json(Path(STATE))
        value = known | {"state": state, "supervisor": identity(os.getpid())} | more
        if self._child is not None:
            value["child"] = identity(self._child.pid) or value.get("child")
        write_json(Path(STATE), value)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._signal(signal.SIGTERM)
        signal.alarm(GRACE_S)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Go into the background, and supervise the service of the directory on the command line."""
    if os.fork():
        return
    os.setsid()
    Supervisor(Path(sys.argv[1])).run()


if __name__ == "__main__":
    main()
