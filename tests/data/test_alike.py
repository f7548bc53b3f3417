"""Blocks of samples with the same members are split at once, just as one by one."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from vmcmc_dist.data import tar
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.samples import Bad, Encoded, split_block


def block(*names: str, content: bytes = b"7") -> bytes:
    """A tar of members without its end mark, as a block is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        end = file.offset
    return buffer.getvalue()[:end]


USUAL = ("a/1.jpg", "a/1.cls", "a/2.jpg", "a/2.cls", "b/3.jpg", "b/3.cls")


@pytest.mark.parametrize(
    "names",
    [
        USUAL,
        ("1.jpg", "2.jpg", "3.jpg"),
        ("9.jpg", "9.cls", "10.jpg", "10.cls", "photos/of/1000.jpg", "photos/of/1000.cls"),
        ("1.jpg", "2.jpg", "1.jpg"),  # a key again, but not at once
        (f"{'a' * 96}.jpg", "b.jpg"),  # no room left in the header
        ("1.input.png", "1.target.png", "1.cls", "2.input.png", "2.target.png", "2.cls"),
    ],
)
def test_the_usual_blocks_are_split_at_once(names: tuple[str, ...]) -> None:
    data = block(*names)
    alike = tar.alike_samples(data)
    assert alike is not None
    together = [
        (key.decode(), {e: (starts[i], stops[i]) for e, (starts, stops) in alike.members.items()})
        for i, key in enumerate(alike.keys)
    ]
    assert together == [(s.key, s.members) for s in tar.samples(data, "here")]


ODD = [
    ("1.jpg", "1.cls", "2.cls", "2.jpg"),  # another order
    ("1.jpg", "1.cls", "2.jpg"),  # one is missing
    ("1.jpg", "1.cls", "2.jpg", "3.cls"),
    ("1.jpg", "1.cls", "2.png", "2.cls"),
    ("1.jpg", "1.jpg"),  # one key twice
    ("1.jpg", "1.cls", "1.jpg", "1.cls"),
    ("1.jpg", "1.JPG", "2.jpg", "2.JPG"),
    ("1.jpg", "d/.jpg", "3.jpg"),  # no key
    ("1.jpg", ".jpg", "3.jpg"),
    ("1.jpg", "2.x.jpg", "3.jpg"),  # another extension
    ("d.e/1.jpg", "d.e/2.jpg"),
    ("1.jpg", "d.e/2.jpg"),
    ("ü.jpg", "2.jpg"),
    ("1.jpg", "12jpg"),  # no dot where the first has one
    ("1.jpg", "1.txt", "2.jpg", "2.txt"),  # members that are not ours
    ("1.jpg", "x\ny.jpg"),
    ("1.jpg", "ü.jpg"),
]


REFUSED = [
    ("1.jpg", "/2.jpg"),
    ("1.jpg", "~2.jpg"),
    ("1.jpg", "a\\2.jpg"),
    ("1.a\\b.jpg", "2.a\\b.jpg"),
]


@pytest.mark.parametrize("names", [*ODD, *REFUSED])
def test_other_blocks_are_left_to_the_slow_way(names: tuple[str, ...]) -> None:
    assert tar.alike_samples(block(*names)) is None


@pytest.mark.parametrize("names", [*ODD, USUAL])
@pytest.mark.parametrize("kind", ["none", "class"])
def test_both_ways_give_the_same_samples(names: tuple[str, ...], kind: str, monkeypatch) -> None:
    data = block(*names)
    labels = LabelInfo(kind, tuple("abcdefgh") if kind == "class" else ())
    count = len(list(tar.samples(data, "here")))
    quick = split_block(data, "here", count, labels, pairs=False)
    monkeypatch.setattr(tar, "alike_samples", lambda data: None)
    assert list(quick) == list(split_block(data, "here", count, labels, pairs=False))
    assert len(quick) == count


LARGE = bytes(tar.LARGE)


@pytest.mark.parametrize("names", [*ODD, USUAL])
def test_blocks_of_large_members_are_split_by_their_sizes(names: tuple[str, ...]) -> None:
    data, small = block(*names, content=LARGE), block(*names)
    alike, of_small = tar.alike_samples(data), tar.alike_samples(small)
    assert (alike is None) == (of_small is None)
    if alike is not None:
        expected = list(tar.samples(data, "here"))
        assert [key.decode() for key in alike.keys] == [sample.key for sample in expected]
        for extension, (starts, stops) in alike.members.items():
            places = list(zip(starts, stops, strict=True))
            assert places == [sample.members[extension] for sample in expected]


@pytest.mark.parametrize("content", [b"7", LARGE])
@pytest.mark.parametrize("size", [
    b"00000000008", b"-0000000001", b"0000_000001", b"0o000000001", b"\x80" + b"\0" * 9 + b"\1",
    b" 0000000001", b"\0" * 11, b"77777777777",
])  # fmt: skip
@pytest.mark.parametrize("member", range(4))
def test_headers_with_odd_sizes_are_left_to_the_slow_way(content, size, member) -> None:
    """And are not followed around in circles."""
    data = bytearray(block("1.jpg", "2.jpg", "3.jpg", "4.jpg", content=content))
    head = member * len(data) // 4
    data[head + 124 : head + 135] = size
    assert tar.alike_samples(bytes(data)) is None


@pytest.mark.parametrize("content", [b"7", LARGE])
@pytest.mark.parametrize(("place", "odd"), [(257, b"x"), (261, b"x"), (156, b"5"), (345, b"d")])
@pytest.mark.parametrize("member", range(3))
def test_other_headers_are_left_to_the_slow_way(content, place, odd, member) -> None:
    data = bytearray(block("1.jpg", "2.jpg", "3.jpg", content=content))
    at = member * len(data) // 3 + place
    data[at : at + 1] = odd
    assert tar.alike_samples(bytes(data)) is None


@pytest.mark.parametrize("content", [b"8", b"-1", b"x", b"", b" 3\n"])
def test_bad_classes_are_named_one_by_one(content: bytes) -> None:
    found = split_block(
        block(*USUAL, content=content), "here", 3, LabelInfo("class", tuple("abcdefgh")),
        pairs=False,
    )  # fmt: skip
    if content == b" 3\n":
        assert all(isinstance(one, Encoded) and one.label == 3 for one in found)
    else:
        assert [one.key for one in found] == ["a/1", "a/2", "b/3"]
        assert all(isinstance(one, Bad) and "label" in one.reason for one in found)


def test_any_order_of_members_is_split_alike(monkeypatch) -> None:
    """300 random blocks of few names, half of them nearly alike: both ways agree on each."""
    chance = random.Random(0)
    keys, endings = ("1", "2", "10", "d/3", "d/.x"), ("jpg", "cls", "json", "txt", "JPG")
    pool = [f"{key}.{ending}" for key in keys for ending in endings]
    quick = 0
    for number in range(300):
        names = chance.choices(pool, k=chance.randint(1, 6))
        if number % 2:
            own = chance.sample(endings[:3], chance.randint(1, 3))
            names = [f"{key}.{e}" for key in chance.choices(keys[:4], k=3) for e in own]
            if number % 4 == 1:
                names[chance.randrange(len(names))] = chance.choice(pool)
        data = block(*names)
        slow = [(s.key, s.members) for s in tar.samples(data, "here")]
        alike = tar.alike_samples(data)
        if alike is not None:
            quick += 1
            assert slow == [
                (key.decode(), {e: (a[i], b[i]) for e, (a, b) in alike.members.items()})
                for i, key in enumerate(alike.keys)
            ]
    assert quick > 60
