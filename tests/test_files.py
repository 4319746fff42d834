"""Files that are there whole or not at all."""

from __future__ import annotations

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
