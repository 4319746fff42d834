"""Files that are there whole or not at all."""

from __future__ import annotations

import os

import pytest

from ruyicam.cloud.files import whole, write_whole


def test_a_file_that_could_not_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "made" / "list.pem"
    write_whole(path, "old")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
    with whole(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OSError), whole(tmp_path / "x"):
        pass


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / "kept").mkdir()
    path, link = tmp_path / "kept" / "list.pem", tmp_path / "link.pem"
    path.write_text("old")
    link.symlink_to(path)
    write_whole(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "said")
    assert os.read(reader, 10) == b"said" and pipe.is_fifo()
    os.close(reader)
