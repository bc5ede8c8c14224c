"""The command line (core/cli): ``run`` is what a start without arguments does."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    # At once: nothing has to be saved, and threads inside llama.cpp would be waited for otherwise.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    # Before the imports that take time: as process 1 of a container, a signal without a handler is
    # not delivered.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    from tests.world.localai.cli import main

    sys.exit(main(sys.argv[1:]))
