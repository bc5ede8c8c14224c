"""What a model takes of a machine's memory, and the settings that make it fit.

>>> model = Model.of([header])
>>> estimate(model, Settings(context=8192), devices).fits

The formulas are llama.cpp's own as of b11549; tests hold them against numbers from it.
"""

from llmctl.core.memory.choose import Chosen, Wanted, choose
from llmctl.core.memory.estimate import estimate
from llmctl.core.memory.facts import (
    GIB,
    MIB,
    Device,
    DeviceMemory,
    Estimate,
    Settings,
    Term,
)
from llmctl.core.memory.model import Model
from llmctl.core.memory.projector import Projector
from llmctl.core.memory.reasons import Decision
from llmctl.core.memory.table import Row, Table, table

__all__ = [
    "GIB",
    "MIB",
    "Chosen",
    "Decision",
    "Device",
    "DeviceMemory",
    "Estimate",
    "Model",
    "Projector",
    "Row",
    "Settings",
    "Table",
    "Term",
    "Wanted",
    "choose",
    "estimate",
    "table",
]
