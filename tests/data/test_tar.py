"""Our parser of tars against Python's own, WebDataset's grouping, and tars that mean harm."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from webdataset import DataPipeline, tariterators

from vmcmc_dist.data import tar
from vmcmc_dist.errors import DataError

Files = list[tuple[str, bytes]]
PLAIN: Files = [(f"{i:03d}.{e}", bytes(37 * i + len(e))) for i in range(7) for e in ("jpg", "cls")]
ODD: Files = [
    ("a/b.c/001.input.PNG", b"x" * 513),
    ("a/b.c/001.target.png", b"y" * 512),
    ("a/b.c/001.json", b""),
    ("readme.txt", b"no sample"),
    ("a/b.c/002.png", b"z"),
    ("__meta__", b"{}"),
    (".hidden.png", b"no key"),
    ("d" * 80 + "/" + "e" * 120 + ".png", b"a long name"),
    ("für/003.png", b"umlaut"),
    ("004.npy", b"n" * 2000),
]


def write(files: Files, form: int = tarfile.USTAR_FORMAT, **changes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("files", [PLAIN, ODD], ids=["plain", "odd"])
def test_members_are_those_of_tarfile(form, files):
    data = write([f for f in files if form != "ustar" or len(f[0].encode()) < 100], FORMATS[form])
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        known = [(m.name, m.offset, m.offset_data, m.size) for m in file.getmembers()]
    found = list(tar.members(data, "x", strict=True))
    assert [(m.name, m.start, m.content, m.size) for m in found] == known
    assert [m.stop for m in found[:-1]] == [m.start for m in found[1:]]


def test_a_name_that_is_split_over_two_fields():
    name = "p" * 90 + "/" + "n" * 60 + ".png"
    (member,) = tar.members(write([(name, b"1")]), "x", strict=True)
    assert member.name == name


def test_folders_are_passed_over():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        info = tarfile.TarInfo("set/1.png")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    (sample,) = tar.samples(buffer.getvalue(), "x")
    assert sample.key == "set/1" and sample.start == 512


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_samples_are_those_of_webdataset(form):
    data = write(ODD, FORMATS[form])

    def source():
        yield {"url": "x", "stream": io.BytesIO(data)}

    groups = DataPipeline(source, tariterators.tar_file_expander, tariterators.group_by_keys)
    known = {
        s["__key__"]: {e: c for e, c in s.items() if e.rsplit(".", 1)[-1] in tar.ALLOWED}
        for s in groups
    }
    found = {
        s.key: {e: data[a:b] for e, (a, b) in s.members.items()} for s in tar.samples(data, "x")
    }
    assert found == {key: members for key, members in known.items() if members}
    assert "a/b.c/001" in found and set(found["a/b.c/001"]) == {"input.png", "target.png", "json"}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("files", [PLAIN, ODD], ids=["plain", "odd"])
def test_the_quick_way_finds_the_same(form, files):
    data = write([f for f in files if form != "ustar" or len(f[0].encode()) < 100], FORMATS[form])
    samples = list(tar.samples(data, "x"))
    whole = data[samples[0].start : samples[-1].stop]
    expected = list(tar.samples(whole, "x"))
    assert list(tar.block_samples(whole, "x")) == expected
    quick = tar._plain_members(whole)
    assert (quick is not None) == (files is PLAIN)


def test_the_quick_way_is_not_led_astray_by_what_looks_like_a_header():
    inner = write([("evil.png", b"1")])[:512]
    files = [("1.png", inner + b"2"), ("2.png", b"3")]
    data = write(files)
    data = data[: [m.stop for m in tar.members(data, "x")][-1]]
    assert tar._plain_members(data) is None
    assert [s.key for s in tar.block_samples(data, "x")] == ["1", "2"]


@pytest.mark.parametrize("name", ["/etc/1.png", "../1.png", "a/../../1.png", "~/1.png", "a\\1.png"])
@pytest.mark.parametrize("read", [tar.samples, tar.block_samples])
def test_names_that_leave_the_folder_are_refused(name, read: Callable):
    data = write([("0.png", b"0"), (name, b"1")])
    data = data[: data.index(name.encode()) + 1024]
    with pytest.raises(DataError, match="x: member name .* leaves the folder; refused"):
        list(read(data, "x"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("read", [tar.samples, tar.block_samples])
def test_links_and_devices_are_refused(kind, read: Callable):
    data = write([("0.png", b"")], type=kind, linkname="/etc/passwd")[:512]
    with pytest.raises(DataError, match="x: member '0.png' is a link or a device; refused"):
        list(read(data, "x"))


def test_other_members_are_not_looked_at():
    data = write([("1.pyd", b"\x80\x04."), ("1.pickle", b"\x80\x04."), ("1.png", b"1")])
    (sample,) = tar.samples(data, "x")
    assert set(sample.members) == {"png"}


@pytest.mark.parametrize("cut", [300, 512, 513, 1000, 1023])
def test_a_tar_that_ends_early_is_torn(cut):
    data = write(PLAIN)
    end = list(tar.members(data, "x"))[-1].stop  # of a member of 225 bytes
    with pytest.raises(tar.Torn, match="x: ends within"):
        list(tar.members(data[: end - cut], "x"))


def test_a_tar_without_its_end_mark_may_lack_members():
    data = write(PLAIN)
    end = list(tar.members(data, "x"))[-1].stop
    with pytest.raises(tar.Torn, match="no end mark"):
        list(tar.members(data[:end], "x", strict=True))


@pytest.mark.parametrize("place", [0, 100, 124, 135, 148, 156, 257])
def test_a_damaged_header_is_noticed(place):
    data = bytearray(write(PLAIN))
    data[1024 + place] ^= 0x15
    with pytest.raises(DataError):
        list(tar.members(bytes(data), "x", strict=True))


def test_sizes_beyond_octal():
    data = bytearray(write([("1.png", b"abc")]))
    data[124:136] = b"\x80" + bytes(7) + (3).to_bytes(4, "big")
    assert [m.size for m in tar.members(bytes(data), "x")] == [3]
    data[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    with pytest.raises(tar.Torn):
        list(tar.members(bytes(data), "x"))


def test_random_bytes_are_an_error_and_nothing_else():
    rng = np.random.default_rng(0)
    good = write(PLAIN)
    for _ in range(300):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        try:
            samples = list(tar.block_samples(bytes(data), "x"))
            assert all(0 <= a <= b <= len(data) for s in samples for a, b in s.members.values())
        except DataError:
            pass
