"""What the catalogue promises of a model, so that a smoke test may demand it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_THINGS = ("colour", "shape")


@dataclass(frozen=True)
class Capabilities:
    """What a model is known to do with the pictures of `core.picture`, in English and Japanese.

    Attributes:
        colour: It names the colour of each of them.
        shape: It names the shape of each of them.
        admits_no_picture: Asked about a picture that is not there, it says that there is none.
    """

    colour: bool = False
    shape: bool = False
    admits_no_picture: bool = False


# Of most models nothing is known for certain; their answers are shown, not judged.
NOTHING_PROMISED = Capabilities()


def parse_capabilities(fields: dict[str, Any]) -> Capabilities:
    """Read `{"sees": ["colour", "shape"], "admits_no_picture": true}`; each key may be left out.

    Raises:
        ValueError: another key or word; the catalogue is ours, so that is a bug.
    """
    sees = fields.get("sees", [])
    admits = fields.get("admits_no_picture", False)
    unknown = [*(fields.keys() - {"sees", "admits_no_picture"}), *(set(sees) - set(_THINGS))]
    if unknown or not isinstance(admits, bool):
        raise ValueError(f"capabilities {fields!r} are not valid")
    return Capabilities("colour" in sees, "shape" in sees, admits)
