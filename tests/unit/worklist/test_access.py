"""Deny by default."""

import pytest
from fastapi import APIRouter, FastAPI

from clearfilm.errors import StartupError
from db.accounts import Role
from worklist import access
from worklist.denials import MOST_A_MINUTE, Denials


def test_application_does_not_start_with_a_route_that_names_nobody() -> None:
    room = APIRouter()

    @room.get("/forgotten")
    def forgotten() -> None: ...

    with pytest.raises(StartupError, match="forgotten"):
        access.include(FastAPI(), room)


def test_roles_or_anybody_but_not_both() -> None:
    with pytest.raises(ValueError, match="anybody"):
        access.allow()
    with pytest.raises(ValueError, match="anybody"):
        access.allow(Role.ADMIN, anybody=True)


def test_denials_of_one_stranger_are_bounded_and_counted() -> None:
    now = 0.0
    denials = Denials(lambda: now)
    admitted = [denials.admit("192.0.2.1") for _ in range(MOST_A_MINUTE + 5)]
    assert admitted == [0] * MOST_A_MINUTE + [None] * 5
    assert denials.admit("192.0.2.2") == 0
    now = 61.0
    assert denials.admit("192.0.2.1") == 5
    assert denials.admit("192.0.2.1") == 0
