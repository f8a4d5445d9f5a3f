"""Keys are made once, by one of many, and never silently again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from clearfilm.errors import StartupError
from clearfilm.keys import installation_key, read_key


def test_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    key = installation_key(path)
    assert installation_key(path) == read_key(path) == key
    assert path.stat().st_mode & 0o077 == 0
    assert [path] == list(tmp_path.iterdir())


def test_all_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    together = Barrier(8)

    def make(_number: int) -> bytes:
        together.wait()
        return installation_key(tmp_path / "some.key")

    for _ in range(20):
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(make, range(8)))) == 1
        (tmp_path / "some.key").unlink()


def test_empty_or_missing_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.key").touch()
    with pytest.raises(StartupError, match="backup"):
        installation_key(tmp_path / "some.key")
    with pytest.raises(StartupError, match="cannot be read"):
        read_key(tmp_path / "other.key")
