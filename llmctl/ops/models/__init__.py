"""Model files: where they come from, what is here, and how they get here.

`garbage`, `inspecting` and `examining` are imported where they are used: a pull with nothing to do,
and a no-op `up`, read no header.
"""

from llmctl.hub.base import Hub
from llmctl.ops.models.disk import missing
from llmctl.ops.models.inventory import (
    Check,
    FileOnDisk,
    Listed,
    Removal,
    Shown,
    listing,
    plan_removal,
    remove,
    show,
    verify,
)
from llmctl.ops.models.pulling import PullOptions, PullResult, pull
from llmctl.ops.models.sources import capabilities, load_catalog, read_lock, resolve

__all__ = [
    "Check",
    "FileOnDisk",
    "Hub",
    "Listed",
    "PullOptions",
    "PullResult",
    "Removal",
    "Shown",
    "capabilities",
    "listing",
    "load_catalog",
    "missing",
    "plan_removal",
    "pull",
    "read_lock",
    "remove",
    "resolve",
    "show",
    "verify",
]
