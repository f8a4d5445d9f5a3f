"""What all readers ask for is asked once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from worklist.list_views import Fresh


def test_what_many_ask_for_at_once_is_asked_once() -> None:
    kept = Fresh(60)
    asked: list[int] = []
    everybody = threading.Barrier(4)
    go = threading.Event()

    def ask() -> str:
        asked.append(1)
        assert go.wait(30)
        return "answer"

    def reader() -> str:
        everybody.wait(30)
        return str(kept.get("key", ask))

    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(reader) for _ in range(3)]
        everybody.wait(30)
        go.set()
        assert [answer.result(30) for answer in answers] == ["answer"] * 3
    assert len(asked) == 1


def test_a_failure_is_told_and_not_kept() -> None:
    kept = Fresh(60)
    with pytest.raises(ZeroDivisionError):
        kept.get("key", lambda: 1 / 0)
    assert kept.get("key", lambda: 2) == 2


def test_no_more_is_kept_than_allowed_and_nothing_that_is_old() -> None:
    kept, old = Fresh(60, most=2), Fresh(0)
    assert [kept.get(number, lambda: "first") for number in range(3)] == ["first"] * 3
    assert kept.get(0, lambda: "second") == "second"
    assert [old.get("key", lambda value=value: value) for value in (1, 2)] == [1, 2]
