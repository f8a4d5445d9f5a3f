"""Durable files."""

import fcntl
import os
from pathlib import Path

import pytest

from clearfilm.errors import StorageError
from clearfilm.files import TEMPORARY_SUFFIX, write_durably


def test_what_a_killed_process_left_makes_room_but_not_what_a_living_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    partial = path.with_name(path.name + TEMPORARY_SUFFIX)
    partial.write_bytes(b"half of")
    with partial.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=os.strerror(11)):
            write_durably(path, [b"all of it"])
        assert partial.read_bytes() == b"half of"
    write_durably(path, [b"all of it"])
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("run.json", b"all of it")]
