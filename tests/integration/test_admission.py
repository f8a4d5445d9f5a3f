"""Who comes by the provider, on SQLite and PostgreSQL: one user for one person, whatever happens at once."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import IntegrityError

from db import accounts
from db.accounts import Identity, Login, Role, User
from db.models import Audit
from db.session import Database
from worklist import logins
from worklist.oidc.claims import Person
from worklist.oidc.errors import LoginRefused, Refusal

ISSUER = "https://idp.example"
LIMITS = accounts.Limits(idle=timedelta(minutes=15), absolute=timedelta(hours=12))


def person(subject: str = "sub-1", name: str = "anna", role: Role | None = Role.READER) -> Person:
    return Person(Identity(ISSUER, subject), name, role)


def test_first_logins_at_once_make_one_user(database: Database) -> None:
    with ThreadPoolExecutor(6) as pool:
        users = list(pool.map(lambda _: logins.admit(database, person(), "192.0.2.1"), range(6)))
    assert len({user.id for user in users}) == 1
    with database.read() as session:
        assert session.scalars(select(Audit.event)).all() == ["user added"]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite lets one transaction write at a time
def test_first_login_that_ends_between_two_reads_of_another_is_the_same_user(database: Database) -> None:
    looks, earlier = itertools.count(), []

    def overtake(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "users.subject = " in statement and next(looks) == 0:
            earlier.append(logins.admit(database, person(), "192.0.2.2"))

    event.listen(Engine, "after_cursor_execute", overtake)
    try:
        assert logins.admit(database, person(), "192.0.2.1").id == earlier[0].id
    finally:
        event.remove(Engine, "after_cursor_execute", overtake)


def test_two_people_of_one_name_at_once_are_one_user_and_one_refusal(database: Database) -> None:
    def admit(subject: str) -> User | Refusal:
        try:
            return logins.admit(database, person(subject), "192.0.2.1")
        except LoginRefused as refused:
            return refused.refusal

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(admit, [f"sub-{number}" for number in range(4)]))
    assert sum(isinstance(one, User) for one in found) == 1
    assert found.count(Refusal.NAME_TAKEN) == 3


def test_letters_of_a_subject_matter(database: Database) -> None:
    one = logins.admit(database, person("Sub", "anna"), "192.0.2.1")
    other = logins.admit(database, person("sUB", "berta"), "192.0.2.1")
    assert one.id != other.id
    with database.read() as session:
        assert accounts.user_of(session, Identity(ISSUER, "SUB")) is None


def test_database_itself_keeps_one_user_for_one_person(database: Database) -> None:
    logins.admit(database, person(), "192.0.2.1")
    with pytest.raises(IntegrityError), database.begin() as session:
        accounts.add_user_of(session, Identity(ISSUER, "sub-1"), "other", Role.READER, now=database.now(session))


def test_person_without_a_role_is_logged_out_and_stays_without(database: Database) -> None:
    user = logins.admit(database, person(), "192.0.2.1")
    logins.log_in(database, user, "192.0.2.1", limits=LIMITS)
    with pytest.raises(LoginRefused) as caught:
        logins.admit(database, person(role=None), "192.0.2.1")
    assert caught.value.refusal is Refusal.NO_ROLE
    with database.read() as session:
        assert session.scalars(select(Login)).all() == []


def test_browsers_are_remembered(database: Database) -> None:
    user = logins.admit(database, person(), "192.0.2.1")
    with database.begin() as session:
        value = logins.remember_browser(session, user, "", now=database.now(session))
        assert logins.remember_browser(session, user, value, now=database.now(session)) == value
        assert logins.known_browser(session, user, value) is not None
        assert logins.known_browser(session, None, value) is None
