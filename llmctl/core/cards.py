"""Common GPUs by name: how much memory their driver reports, and what they can compute.

The figures are what nvidia-smi, amdgpu's sysfs and Intel's runtime show on such a card (a 24 GB RTX
4090 has 24564 MiB, an L4 with its ECC on 23034), because that is what a model must fit in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from llmctl.core.sizes import MIB

Vendor = Literal["nvidia", "amd", "intel", "apple"]


@dataclass(frozen=True)
class Card:
    """A GPU as it is sold.

    Attributes:
        name: Without its maker's words: "RTX 4090".
        vendor: Its maker.
        total: Bytes of memory its driver reports.
        compute_capability: CUDA's, such as "8.9"; None for other makers.
        pci_device: PCI device numbers of Intel's cards, whose drivers do not tell the memory.
    """

    name: str
    vendor: Vendor
    total: int
    compute_capability: str | None = None
    pci_device: str | None = None


def _nvidia(capability: str, *cards: tuple[str, int]) -> list[Card]:
    return [Card(name, "nvidia", mib * MIB, capability) for name, mib in cards]


CARDS: tuple[Card, ...] = (
    *_nvidia("6.0", ("P100", 16384)),
    *_nvidia("6.1", ("GTX 1070", 8192), ("GTX 1080", 8192), ("GTX 1080 Ti", 11264), ("P40", 24576)),
    *_nvidia("7.0", ("V100 16GB", 16384), ("V100 32GB", 32768)),
    *_nvidia("7.5", ("GTX 1660", 6144), ("RTX 2060", 6144), ("RTX 2070", 8192)),
    *_nvidia("7.5", ("RTX 2080", 8192), ("RTX 2080 Ti", 11264), ("T4", 15360)),
    *_nvidia("8.0", ("A100 40GB", 40960), ("A100 80GB", 81920), ("A30", 24576)),
    *_nvidia("8.6", ("RTX 3050", 8192), ("RTX 3060", 12288), ("RTX 3060 Ti", 8192)),
    *_nvidia("8.6", ("RTX 3070", 8192), ("RTX 3080", 10240), ("RTX 3090", 24576)),
    *_nvidia("8.6", ("A10", 23028), ("A10G", 23028), ("A40", 46068)),
    *_nvidia("8.6", ("RTX A4000", 16376), ("RTX A5000", 24564), ("RTX A6000", 49140)),
    *_nvidia("8.9", ("RTX 4060", 8188), ("RTX 4060 Ti", 8188), ("RTX 4060 Ti 16GB", 16380)),
    *_nvidia("8.9", ("RTX 4070", 12282), ("RTX 4070 Ti", 12282), ("RTX 4080", 16376)),
    *_nvidia("8.9", ("RTX 4090", 24564), ("L4", 23034), ("L40S", 46068)),
    *_nvidia("8.9", ("RTX 6000 Ada", 49140)),
    *_nvidia("9.0", ("H100", 81559), ("H100 80GB", 81559), ("H200", 143771)),
    *_nvidia("10.0", ("B200", 183359)),
    *_nvidia("12.0", ("RTX 5060", 8151), ("RTX 5060 Ti", 8151), ("RTX 5060 Ti 16GB", 16311)),
    *_nvidia("12.0", ("RTX 5070", 12227), ("RTX 5070 Ti", 16303), ("RTX 5080", 16303)),
    *_nvidia("12.0", ("RTX 5090", 32607)),
    Card("RX 6700 XT", "amd", 12272 * MIB),
    Card("RX 6800 XT", "amd", 16368 * MIB),
    Card("RX 7600", "amd", 8176 * MIB),
    Card("RX 7800 XT", "amd", 16368 * MIB),
    Card("RX 7900 XT", "amd", 20464 * MIB),
    Card("RX 7900 XTX", "amd", 24560 * MIB),
    Card("RX 9070 XT", "amd", 16304 * MIB),
    Card("MI210", "amd", 65520 * MIB),
    Card("MI300X", "amd", 196592 * MIB),
    # Where no runtime's figure is known to us, 15/16 of what is on the box, as for their siblings.
    Card("Arc A380", "intel", 6 * 960 * MIB, pci_device="0x56a5"),
    Card("Arc A750", "intel", 7721 * MIB, pci_device="0x56a1"),
    # Sold with 8 and with 16 GB under one PCI number, so only its name says how much it has.
    Card("Arc A770", "intel", 15473 * MIB),
    Card("Arc B570", "intel", 10 * 960 * MIB, pci_device="0xe20c"),
    Card("Arc B580", "intel", 11604 * MIB, pci_device="0xe20b"),
)

# What makers put around the name of a card: "NVIDIA H100 80GB HBM3", "AMD Radeon RX 7900 XTX".
# "Laptop GPU" stays: a laptop's RTX 4090 is another card, with 16 GB.
_DRESSING = re.compile(
    r"\b(nvidia|geforce|tesla|quadro|amd|radeon|instinct|intel|graphics|corporation|generation"
    r"|pcie|sxm\d?|hbm\de?)(?=\W|_|$)|\((?:r|tm)\)"
)
NEAREST = 5
COMMON = ("RTX 3060", "RTX 4090", "L4", "A100 80GB", "RX 7900 XTX")


def find_card(name: str) -> Card | None:
    """The card a name means, whatever its case, spaces and maker's words: "rtx4090"."""
    return _BY_KEY.get(_key(name))


def nearest_cards(name: str) -> tuple[str, ...]:
    """Names of the cards spelled most like `name`, best first; some whatever it is."""
    import difflib  # 10 ms that only a misspelt name costs

    keys = difflib.get_close_matches(_key(name), _BY_KEY, n=NEAREST, cutoff=0.5)
    names = [*(_BY_KEY[key].name for key in keys), *COMMON]
    return tuple(dict.fromkeys(names))[:NEAREST]


def intel_card(pci_device: str) -> Card | None:
    """Intel's card with a PCI device number such as "0xe20b"."""
    return next((card for card in CARDS if card.pci_device == pci_device.lower()), None)


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", _DRESSING.sub("", name.lower()))


_BY_KEY = {_key(card.name): card for card in CARDS}
