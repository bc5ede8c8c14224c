"""How long to wait, how often to try, and over how many connections. No clock, no network."""

from __future__ import annotations

import random
from dataclasses import dataclass

MOST_CONNECTIONS = 8
_GAIN = 1.1
_SETTLED_WINDOWS = 20


@dataclass(frozen=True)
class Patience:
    """How a transfer meets a bad network; times in seconds.

    Attributes:
        connect_s: For a connection to come about.
        stall_s: Without a byte, or at less than `slowest` on average: connect again.
        slowest: Bytes a second.
        tries: Failures in a row without a new byte before giving up.
        first_s: Before the second try; twice as long before each further one.
        most_s: The longest such pause.
        longest_wait_s: What a server may ask us to wait; beyond it the user is told instead.
        window_s: Over which throughput is measured before connections are added.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    slowest: int = 1024
    tries: int = 8
    first_s: float = 0.5
    most_s: float = 30.0
    longest_wait_s: float = 60.0
    window_s: float = 1.0

    def pause_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row (at least one), with jitter.

        Without it all clients of a server that stumbled would come back at the same moment.
        """
        longest = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 60))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret


class Width:
    """How many connections to use: twice as many as long as that brings at least a tenth more."""

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self.wanted = 1
        self._most = most
        self._before: tuple[int, float] | None = None
        self._settled = 0

    def measured(self, rate: float) -> None:
        """Bytes a second over a window in which all wanted connections were busy."""
        if self._settled:
            self._settled -= 1
        elif self._before and rate < self._before[1] * _GAIN:
            self.wanted, self._before = self._before[0], None
            self._settled = _SETTLED_WINDOWS
        elif self.wanted < self._most:
            self._before = self.wanted, rate
            self.wanted = min(self.wanted * 2, self._most)
        else:
            self._before = None

    def failed(self, left: int) -> None:
        """A connection failed while `left` others go on: the server bears no more."""
        self._most = self.wanted = max(1, left)
        self._before = None
