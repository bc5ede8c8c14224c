"""Which blocks of a file are here, under way or missing. Pure; its owner guards it with a lock."""

from __future__ import annotations

from collections.abc import Iterable

from llmctl.hub.journal import BLOCK, block_length

_MISSING, _UNDER_WAY, _HERE = range(3)


class Blocks:
    """The blocks of a file of `size` bytes, of which `here` are on disk already."""

    def __init__(self, size: int, here: Iterable[int] = ()) -> None:
        self.size = size
        self.done = 0
        self._states = bytearray(-(-size // BLOCK))
        for index in here:
            self.arrived(index)

    def __len__(self) -> int:
        return len(self._states)

    @property
    def missing(self) -> int:
        """How many blocks nobody has and nobody fetches."""
        return self._states.count(_MISSING)

    def is_here(self, index: int) -> bool:
        """Whether a block is on disk."""
        return self._states[index] == _HERE

    def take(self, most: int) -> range | None:
        """The first missing blocks in a row, at most `most`; they count as under way."""
        first = self._states.find(_MISSING)
        if first < 0:
            return None
        last = first
        while last < min(first + most, len(self)) and self._states[last] == _MISSING:
            self._states[last] = _UNDER_WAY
            last += 1
        return range(first, last)

    def arrived(self, index: int) -> None:
        """A block is on disk."""
        if self._states[index] != _HERE:
            self._states[index] = _HERE
            self.done += block_length(index, self.size)

    def lost(self, index: int) -> None:
        """A block on disk is damaged; it counts as missing."""
        if self._states[index] == _HERE:
            self.done -= block_length(index, self.size)
        self._states[index] = _MISSING

    def given_back(self, taken: range) -> None:
        """Of what was taken, the blocks that did not arrive are missing again."""
        for index in taken:
            if self._states[index] == _UNDER_WAY:
                self._states[index] = _MISSING
