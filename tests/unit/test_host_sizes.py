"""Sizes and GPUs as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.cards import CARDS, find_card, nearest_cards
from llmctl.core.gpus import Gpu, GpuProcess, Hardware, Memory, imagine, parse_gpus
from llmctl.core.sizes import GIB, LARGEST, MIB, memory_text, parse_size
from llmctl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("24G", 24 * GIB),
        ("24g", 24 * GIB),
        ("24Gi", 24 * GIB),
        ("24GB", 24 * 10**9),
        ("24 gb", 24 * 10**9),
        ("8192MiB", 8 * GIB),
        ("8192M", 8 * GIB),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("2TiB", 2048 * GIB),
        ("1.5GiB", 3 * GIB // 2),
        ("0.5", None),
        ("25769803776", 24 * GIB),
        ("512B", 512),
        ("  16G  ", 16 * GIB),
        ("1048576T", LARGEST),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(UsageError):
            parse_size(text)
    else:
        assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "",
        "GiB",
        "-1G",
        "+1G",
        "0",
        "0GiB",
        "1e9",
        "24XB",
        "24GiBs",
        "1,5G",
        "1.G",
        ".5G",
        "24iB",
        "1048577T",
        "２４G",
        "nan",
        "inf",
        "0x10",
        "1_000",
        "9" * 30,
        "9" * 5000,
    ],
)
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, "--ram")
    assert caught.value.message.startswith("--ram: ")
    assert "24GiB" in (caught.value.hint or "")


@given(st.integers(1, LARGEST))
def test_plain_bytes_are_themselves(size: int) -> None:
    assert parse_size(str(size)) == parse_size(f"{size}B") == size


@given(st.integers(1, 10**6), st.sampled_from("kmg"))
def test_units_are_powers(count: int, letter: str) -> None:
    step = "kmg".index(letter) + 1
    assert parse_size(f"{count}{letter}iB") == parse_size(f"{count}{letter}") == count * 1024**step
    assert parse_size(f"{count}{letter}B") == count * 1000**step


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_sizes_keep_their_order(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert parse_size(f"{small}") <= parse_size(f"{large}")
    assert parse_size(f"{small // 1000 + 1}k") <= parse_size(f"{large // 1000 + 1}k")


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_a_users_error(text: str) -> None:
    try:
        size = parse_size(text)
    except UsageError:
        return
    assert 0 < size <= LARGEST


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (1024, "1 KiB"),
        (512 * MIB, "512 MiB"),
        (GIB, "1.0 GiB"),
        (24564 * MIB, "24.0 GiB"),
        (2048 * GIB, "2048.0 GiB"),
    ],
)
def test_text(size: int | None, text: str) -> None:
    assert memory_text(size) == text


# --- GPUs ------------------------------------------------------------------------------------


def test_two_sizes_are_two_gpus() -> None:
    one, other = parse_gpus("24GiB,12GiB")
    assert (one.total, other.total) == (24 * GIB, 12 * GIB)
    assert (one.free, other.free) == (24 * GIB, 12 * GIB)
    assert [(one.kind, one.index), (other.kind, other.index)] == [("nvidia", 0), ("nvidia", 1)]
    assert not one.shared
    assert one.compute_capability is None


def test_a_card_by_its_name() -> None:
    (card,) = parse_gpus("rtx4090")
    assert (card.name, card.kind, card.compute_capability) == ("RTX 4090", "nvidia", "8.9")
    assert card.total == card.free == 24564 * MIB


def test_a_name_with_a_size_is_the_card_with_that_size() -> None:
    (card,) = parse_gpus("RTX 4090:48GiB")  # they are sold in some places
    assert (card.name, card.total, card.compute_capability) == ("RTX 4090", 48 * GIB, "8.9")
    (unknown,) = parse_gpus("Home-made 1:20GB")
    assert (unknown.name, unknown.total, unknown.compute_capability) == (
        "Home-made 1",
        20 * 10**9,
        None,
    )


def test_indices_count_per_maker() -> None:
    gpus = parse_gpus("rtx3060, rx7900xtx, rtx3060, Arc B580")
    assert [(gpu.kind, gpu.index) for gpu in gpus] == [
        ("nvidia", 0),
        ("amd", 0),
        ("nvidia", 1),
        ("intel", 0),
    ]


@pytest.mark.parametrize("text", ["none", "None", " none "])
def test_none_is_no_gpu(text: str) -> None:
    assert parse_gpus(text) == ()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rtx4095", 'by the name "rtx4095"', "RTX 4090"),
        ("7900 xtx", "by the name", "RX 7900 XTX"),
        ("A100", "by the name", "A100 80GB"),
        ("nvidia", "by the name", "NAME:24GiB"),
        ("24", "is 24 bytes", "24GiB"),
        ("24K", "24576 bytes", "24GiB"),
        ("24XB", "by the name", "24GiB"),
        ("", "separated by commas", "rtx4090"),
        ("24GiB,", "separated by commas", "rtx4090"),
        (",".join(["24GiB"] * 65), "separated by commas", "rtx4090"),
        ("RTX 4090:", "is no size", "24GiB"),
        ("RTX 4090:many", "is no size", "24GiB"),
        ("-24GiB", "by the name", "NAME:24GiB"),
    ],
)
def test_no_gpu(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gpus(text)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@given(st.lists(st.integers(1, 512), min_size=1, max_size=8))
def test_any_list_of_sizes(sizes: list[int]) -> None:
    gpus = parse_gpus(",".join(f"{size}GiB" for size in sizes))
    assert [gpu.total for gpu in gpus] == [size * GIB for size in sizes]
    assert [gpu.index for gpu in gpus] == list(range(len(sizes)))


@given(st.text(max_size=40))
def test_any_text_is_gpus_or_a_users_error(text: str) -> None:
    try:
        gpus = parse_gpus(text)
    except UsageError:
        return
    assert all(gpu.total == gpu.free for gpu in gpus)


@given(st.lists(st.sampled_from(CARDS), min_size=1, max_size=4))
def test_every_card_can_be_asked_for(cards: list[object]) -> None:
    names = [card.name for card in CARDS if card in cards]
    gpus = parse_gpus(",".join(name.lower().replace(" ", "") for name in names))
    assert [gpu.name for gpu in gpus] == names


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Intel(R) Arc(TM) B580 Graphics", "Arc B580"),
        # Other cards with other memory.
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA A100", None),
        ("", None),
    ],
)
def test_a_card_by_its_drivers_name(told: str, name: str | None) -> None:
    card = find_card(told)
    assert (card and card.name) == name


def test_cards_have_names_of_their_own_and_sane_memory() -> None:
    assert len({card.name for card in CARDS}) == len(CARDS) >= 30
    for card in CARDS:
        assert find_card(card.name) is card
        assert 4 * GIB < card.total < 256 * GIB
        assert (card.compute_capability is None) == (card.vendor != "nvidia")


def test_nearest_always_names_some() -> None:
    assert nearest_cards("rtx 3061")[0] == "RTX 3060"
    assert nearest_cards("完全に別のもの")


# --- values ----------------------------------------------------------------------------------

GPU = Gpu("nvidia", "X", 0, None, 10 * GIB, 6 * GIB, shared=False, compute_capability=None)


def test_what_nobody_visible_holds() -> None:
    held = (GpuProcess(1, "a", GIB), GpuProcess(2, "b", None))
    assert GPU.unseen == 4 * GIB
    gpu = Gpu(**{**vars(GPU), "processes": held, "reserved": GIB})
    assert gpu.unseen == 2 * GIB
    assert Gpu(**{**vars(GPU), "free": None}).unseen == 0
    assert Gpu(**{**vars(GPU), "shared": True}).unseen == 0


def test_imagine() -> None:
    found = Hardware((GPU,), Memory(8, 4, 2), 4, 8, "550", "12.4", unified=False, problems=())
    assert imagine(found) == found
    assert imagine(found, gpus=()).gpus == ()
    other = imagine(found, ram=64 * GIB)
    assert other.memory == Memory(64 * GIB, 64 * GIB, None)
    assert (other.gpus, other.physical_cores) == (found.gpus, 4)
    assert (Memory(8, 4, 2).usable, Memory(8, 4, None).usable, Memory(8, 4, 16).usable) == (2, 8, 8)
