"""The driver's side of what it and a first worker on another machine tell each other."""

from __future__ import annotations

from pathlib import Path

from vmcmc_dist.engine.ray_desk import Desk
from vmcmc_dist.engine.run_folder import RunFolder


def desk(tmp_path: Path) -> Desk:
    return Desk(RunFolder(tmp_path))


def test_lines_follow_lines_and_a_stop_is_told(tmp_path: Path) -> None:
    one = desk(tmp_path)
    assert one.call(0, b"", False) == (False, 0)
    assert not one.folder.metrics.exists() and not one.folder.first_step.exists()
    assert one.call(0, b"a\n", True) == (False, 2)
    assert one.folder.first_step.exists()
    one.folder.stop.touch()
    assert one.call(2, b"bc\n", True) == (True, 5)
    assert one.folder.metrics.read_bytes() == b"a\nbc\n"


def test_records_that_were_dropped_are_a_new_file(tmp_path: Path) -> None:
    """So that whoever has the old one open sees it."""
    one = desk(tmp_path)
    one.call(0, b"a\nb\n", True)
    with one.folder.metrics.open("rb"):
        before = one.folder.metrics.stat().st_ino
        assert one.call(0, b"a\n", True) == (False, 2)
        assert one.folder.metrics.stat().st_ino != before
    assert one.folder.metrics.read_bytes() == b"a\n"


def test_a_gap_is_not_written_but_told(tmp_path: Path) -> None:
    """After an answer that was lost, or on a driver that was started anew."""
    one = desk(tmp_path)
    one.call(0, b"a\n", True)
    assert one.call(4, b"c\n", True) == (False, 2)
    assert one.folder.metrics.read_bytes() == b"a\n"
