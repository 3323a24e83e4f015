"""A followed file at the moments at which others replace it."""

from __future__ import annotations

from pathlib import Path

from streamer.sources.followed import FollowedFile


def replace(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.rename(path)


def test_a_line_that_was_cut_off_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1\n22222")
    with FollowedFile(path) as followed:
        assert followed.read(100) == b"1\n22222"
        replace(path, b"3\n4")
        assert followed.read(1) == b"\n"
        assert followed.read(100) == b"3\n4"
        path.write_bytes(b"5\n")  # shorter than it was
        assert followed.read(1) == b"\n"
        assert followed.read(100) == b"5\n"
        path.write_bytes(b"")
        followed.stop()
        assert followed.read(100) == b""


def test_the_last_lines_of_a_file_that_is_replaced_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    with path.open("ab") as writer, FollowedFile(path) as followed:
        assert followed.read(100) == b"1\n"
        writer.write(b"2\n")  # between the end that a read found and the look at who has the name
        writer.flush()
        replace(path, b"3\n")
        followed._turned()
        assert followed.read(2) == b"2\n"
        assert followed.read(2) == b"3\n"
