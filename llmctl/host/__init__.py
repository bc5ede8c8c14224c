"""Edge to the host: its processor, memory and GPUs, and who holds a port.

Files are read; the only program started is the one that asks NVIDIA's library, which may hang. Nothing
here raises or waits for long: a broken driver must not break a command that does not need it.
"""

from __future__ import annotations

from llmctl.host.machine import facts, hardware
from llmctl.host.ports import port_owner

__all__ = ["facts", "hardware", "port_owner"]
