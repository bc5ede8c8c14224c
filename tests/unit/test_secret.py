"""Nothing that prints, compares or stores a Secret gives it away."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest

from llmctl.core.secret import Secret

KEY = "sk-0123456789"


@dataclasses.dataclass(frozen=True)
class Holder:
    name: str
    key: Secret


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(KEY)),
        repr(Secret(KEY)),
        f"{Secret(KEY)}",
        f"{Secret(KEY)!r:>20}",
        "%s %r" % (Secret(KEY), Secret(KEY)),  # noqa: UP031 - logging formats like this
        repr(Holder("a", Secret(KEY))),
        str(dataclasses.asdict(Holder("a", Secret(KEY)))),
        str([Secret(KEY)]),
        json.dumps({"key": Secret(KEY)}, default=str),
        str(dir(Secret(KEY))),
    ],
)
def test_no_way_of_printing_shows_the_value(shown: str) -> None:
    assert KEY not in shown


def test_reveal_gives_the_value() -> None:
    assert Secret(KEY).reveal() == KEY


def test_json_refuses_it() -> None:
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(KEY)})


def test_pickle_refuses_it() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(KEY))


def test_equal_only_to_a_secret_of_the_same_value() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2


def test_copies_stay_secret() -> None:
    assert isinstance(dataclasses.asdict(Holder("a", Secret(KEY)))["key"], Secret)
    assert copy.deepcopy(Secret(KEY)).reveal() == KEY


def test_empty_is_false() -> None:
    assert not Secret("")
    assert Secret(KEY)
