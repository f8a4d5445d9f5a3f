"""The door: logging in and out, waits after failures, the first administrator, and what comes from other sites."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select, update

from clearfilm.config import Config, Worklist
from db import accounts, audit, schema
from db.accounts import FailedLogins, KnownBrowser, Login, Role
from db.models import Audit
from db.session import Database
from tests.integration.worklist.conftest import PASSWORD, Site, form_token, seed_users, serving
from worklist import logins, passwords

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Site]:
    """A site without users."""
    config = Config(data_folder=tmp_path)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        with serving(config, database) as server:
            site = Site(server, config, database)
            yield site
            site.close()


def events(site: Site) -> list[str]:
    with site.database.read() as session:
        return list(session.scalars(select(Audit.event).order_by(Audit.id)))


def log_in(client: httpx2.Client, name: str, password: str) -> httpx2.Response:
    token = form_token(client.get("/login").text)
    return client.post("/login", data={"name": name, "password": password, "form_token": token})


def test_user_sees_the_page_of_the_role(as_reader: httpx2.Client, as_auditor: httpx2.Client) -> None:
    assert as_reader.get("/").headers["location"] == "/worklist"
    assert as_auditor.get("/").headers["location"] == "/admin/audit"


def test_login_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site) -> None:
    cookie = log_in(site.client(), "reader", PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_login_gets_a_new_token_each_time(site: Site) -> None:
    client = site.client()
    log_in(client, "reader", PASSWORD)
    first = client.cookies["clearfilm"]
    log_in(site.client(), "reader", PASSWORD)
    client.cookies.set("clearfilm", "planted by somebody else", domain="127.0.0.1")
    assert log_in(site.client(), "reader", PASSWORD).headers["set-cookie"].split("=")[1] != first


def test_logout_ends_the_login(site: Site) -> None:
    client = site.client(Role.ADMIN)
    cookies = {"clearfilm": client.cookies["clearfilm"]}
    assert client.post("/logout").status_code == 303
    with httpx2.Client(base_url=site.url, cookies=cookies) as thief:
        assert thief.get("/worklist").status_code == 401


def test_answers_to_failures_do_not_tell_which_names_exist(site: Site) -> None:
    answers = [log_in(site.client(), name, "wrong password") for name in ("auditor", "nobody at all")]
    assert {answer.status_code for answer in answers} == {401}
    bodies = [answer.text.replace(form_token(answer.text), "") for answer in answers]
    assert bodies[0] == bodies[1]


def test_way_back_after_the_login_stays_on_the_site(site: Site) -> None:
    client = site.client()
    token = form_token(client.get("/login?next=//evil.invalid/").text)
    data = {"name": "reader", "password": PASSWORD, "form_token": token, "next": "//evil.invalid/"}
    assert client.post("/login", data=data).headers["location"] == "/"


def test_failures_block_the_name_and_then_the_right_password_too(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client()
    for _ in range(logins.TRIES_OF_NAME):
        assert log_in(client, "reader", "wrong password").status_code == 401
    answer = log_in(client, "READER ", PASSWORD)
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
    assert log_in(client, "admin", PASSWORD).status_code == 303


def test_failures_elsewhere_do_not_lock_out_a_browser_that_is_known(empty: Site) -> None:
    seed_users(empty.database)
    own = empty.client(Role.READER)
    own.post("/logout")
    stranger = empty.client()
    for _ in range(logins.TRIES_OF_NAME):
        log_in(stranger, "reader", "wrong password")
    assert log_in(stranger, "reader", PASSWORD).status_code == 429
    own.headers.pop("x-form-token")
    assert log_in(own, "reader", PASSWORD).status_code == 303
    # The stranger has gained nothing by that.
    assert log_in(stranger, "reader", PASSWORD).status_code == 429


def test_browser_that_is_known_has_no_more_tries_than_others_and_only_in_its_name(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client(Role.READER)
    client.post("/logout")
    client.headers.pop("x-form-token")
    for name in ("reader", "auditor"):
        for _ in range(logins.TRIES_OF_NAME):
            assert log_in(client, name, "wrong password").status_code == 401
        assert log_in(client, name, PASSWORD).status_code == 429
    # Of the reader, this browser alone is concerned; of the auditor, whom it does not know, all are.
    assert log_in(empty.client(), "reader", PASSWORD).status_code == 303
    assert log_in(empty.client(), "auditor", PASSWORD).status_code == 429


def test_cookie_of_a_known_browser_cannot_be_planted(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client()
    client.cookies.set("clearfilm-known", "planted", domain="127.0.0.1")
    assert log_in(client, "reader", PASSWORD).status_code == 303
    with empty.database.read() as session:
        [row] = session.scalars(select(KnownBrowser))
    assert row.token_hash != passwords.token_hash("planted")


def test_only_the_last_browsers_of_a_user_are_remembered(empty: Site) -> None:
    seed_users(empty.database)
    with empty.database.begin() as session:
        user = accounts.user(session, "reader")
        assert user is not None
        values = [
            logins.remember_browser(session, user, "", now=NOW + timedelta(seconds=number))
            for number in range(accounts.MOST_BROWSERS + 3)
        ]
        kept = [bool(logins.known_browser(session, user, value)) for value in values]
    assert kept == [False] * 3 + [True] * accounts.MOST_BROWSERS


def test_waits_grow_have_a_limit_and_are_forgotten(empty: Site) -> None:
    waits = []
    with empty.database.begin() as session:
        for _ in range(20):
            logins.count_failure(session, "anna", "192.0.2.1", now=NOW)
            waits.append(logins.waiting_seconds(session, "anna", "192.0.2.9", now=NOW))
        assert waits[:6] == [0, 0, 0, 0, 10, 20]
        assert waits == sorted(waits)
        assert waits[-1] == logins.LONGEST_WAIT.total_seconds()
        # The address has failed as often, though with fewer consequences: there may be many people behind it.
        assert logins.waiting_seconds(session, "berta", "192.0.2.1", now=NOW) == logins.FIRST_WAIT.total_seconds()
        later = NOW + logins.FORGET + timedelta(minutes=1)
        logins.count_failure(session, "anna", "192.0.2.1", now=later)
        assert logins.waiting_seconds(session, "anna", "192.0.2.1", now=later) == 0


def test_login_ends_by_idleness_and_at_last_in_any_case(site: Site) -> None:
    limits = site.server.services.limits
    for column, span in ((Login.seen_at, limits.idle), (Login.created_at, limits.absolute)):
        client = site.client(Role.READER)
        with site.database.begin() as session:
            newest = session.scalars(select(Login.id).order_by(Login.id.desc())).first()
            past = site.database.now(session) - span - timedelta(seconds=1)
            session.execute(update(Login).where(Login.id == newest).values({column: past}))
        answer = client.get("/worklist")
        assert answer.headers["location"] == "/login?next=%2Fworklist&ended=1"
        assert "Your login has ended" in client.get(answer.headers["location"]).text


def test_requests_that_a_page_makes_by_itself_do_not_keep_a_login_alive(site: Site) -> None:
    client = site.client(Role.READER)
    with site.database.begin() as session:
        newest = session.scalars(select(Login.id).order_by(Login.id.desc())).first()
        before = site.database.now(session) - timedelta(minutes=5)
        session.execute(update(Login).where(Login.id == newest).values(seen_at=before))

    def seen_at() -> datetime:
        with site.database.read() as session:
            return session.scalars(select(Login.seen_at).where(Login.id == newest)).one()

    client.get("/worklist", headers={"x-idle-seconds": "300"})
    assert seen_at() == before
    client.get("/worklist", headers={"x-idle-seconds": "3"})
    assert seen_at() > before


def test_new_password_ends_all_other_logins(empty: Site) -> None:
    seed_users(empty.database)
    one, other = empty.client(Role.READER), empty.client(Role.READER)
    data = {"present": PASSWORD, "password": "another good one", "again": "another good one"}
    assert one.post("/settings/password", data=data | {"present": "wrong password"}).status_code == 400
    assert one.post("/settings/password", data=data).status_code == 303
    assert one.get("/worklist").status_code == 200
    assert other.get("/worklist").status_code == 303
    assert log_in(empty.client(), "reader", PASSWORD).status_code == 401


def test_disabled_user_is_out_at_once(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client(Role.READER)
    with empty.database.begin() as session:
        user = accounts.user(session, "reader")
        assert user is not None
        user.disabled_at = empty.database.now(session)
    assert client.get("/worklist").status_code == 303
    assert log_in(empty.client(), "reader", PASSWORD).status_code == 401


def test_first_administrator_is_made_once_by_the_link_of_the_console(empty: Site) -> None:
    path = logins.first_login_path(empty.database)
    assert path is not None
    clients = [empty.client() for _ in range(4)]
    tokens = [form_token(client.get(f"/{path}").text) for client in clients]

    def make(number: int) -> int:
        data = {"token": path.partition("=")[2], "name": f"Anna{number}", "password": PASSWORD, "again": PASSWORD}
        return clients[number].post("/first", data=data | {"form_token": tokens[number]}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == [303, 403, 403, 403]
    with empty.database.read() as session:
        [user] = accounts.users(session)
    assert user.role is Role.ADMIN
    assert logins.first_login_path(empty.database) is None
    assert events(empty).count("first administrator made") == 1
    assert empty.client().get(f"/{path}").status_code == 403


def test_guessed_link_makes_nobody(empty: Site) -> None:
    assert empty.client().get("/first?token=guessed").status_code == 403


def test_name_that_no_database_takes_is_a_wrong_name(empty: Site) -> None:
    assert log_in(empty.client(), "reader\0", PASSWORD).status_code == 401


def test_guessed_link_costs_nothing_and_is_recorded(empty: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worklist.passwords.hash_password", lambda *_, **__: pytest.fail("a password was hashed"))
    client = empty.client()
    path = logins.first_login_path(empty.database)
    token = form_token(client.get(f"/{path}").text)
    data = {"token": "guessed", "name": "anna", "password": PASSWORD, "again": PASSWORD, "form_token": token}
    assert client.post("/first", data=data).status_code == 403
    assert events(empty) == ["login failed"]


def test_addresses_of_one_ipv6_network_wait_together(empty: Site) -> None:
    with empty.database.begin() as session:
        for number in range(logins.TRIES_OF_ADDRESS):
            logins.count_failure(session, f"name {number}", f"2001:db8::{number:x}", now=NOW)
        assert logins.waiting_seconds(session, "anna", "2001:db8::ffff:1", now=NOW) > 0
        assert logins.waiting_seconds(session, "anna", "2001:db8:0:1::1", now=NOW) == 0
        assert logins.waiting_seconds(session, "anna", "no address", now=NOW) == 0


def test_failures_that_count_no_more_are_not_kept(empty: Site) -> None:
    with empty.database.begin() as session:
        for number in range(10):
            logins.count_failure(session, f"name {number}", "192.0.2.1", now=NOW)
        later = NOW + logins.FORGET + timedelta(minutes=1)
        logins.count_failure(session, "anna", "192.0.2.2", now=later)
        assert len(list(session.scalars(select(FailedLogins.key)))) == 2


def test_present_password_cannot_be_guessed_at_a_workstation_that_was_left(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client(Role.READER)
    data = {"present": "wrong password", "password": "another good one", "again": "another good one"}
    for _ in range(logins.TRIES_OF_NAME):
        assert client.post("/settings/password", data=data).status_code == 400
    assert client.post("/settings/password", data=data | {"present": PASSWORD}).status_code == 429
    assert events(empty).count("present password wrong") == logins.TRIES_OF_NAME


def test_new_login_in_the_same_browser_ends_the_old_one(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client(Role.READER)
    old = client.cookies["clearfilm"]
    token = client.headers.pop("x-form-token")
    data = {"name": "admin", "password": PASSWORD, "form_token": token}
    assert client.post("/login", data=data).status_code == 303
    assert client.get("/admin").status_code == 200
    thief = empty.client()
    assert thief.get("/worklist", headers={"cookie": f"clearfilm={old}"}).status_code == 303


def test_change_without_the_token_of_a_page_is_denied(site: Site) -> None:
    client = site.client(Role.READER)
    token = client.headers.pop("x-form-token")
    for headers, data in (
        ({}, {}),
        ({"x-form-token": "0" * 64}, {}),
        ({}, {"form_token": "0" * 64}),
        ({"x-form-token": token, "sec-fetch-site": "cross-site"}, {}),
    ):
        answer = client.post("/settings/theme", data={"theme": "light", **data}, headers=headers)
        assert answer.status_code == 403
    assert client.post("/settings/theme", data={"theme": "light", "form_token": token}).status_code == 303
    assert 'data-theme="light"' in client.get("/worklist").text


def test_link_on_another_site_still_finds_the_login(site: Site) -> None:
    """Browsers keep a SameSite=Strict cookie back then; loaded again from our own page they send it."""
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    answer = site.client().get("/worklist", headers=headers)
    assert answer.status_code == 401
    assert 'http-equiv="refresh"' in answer.text
    assert "set-cookie" not in answer.headers


def test_encrypted_connections_get_a_cookie_of_their_own(tmp_path: Path) -> None:
    config = Config(data_folder=tmp_path, worklist=Worklist(trusted_proxies=("127.0.0.1",)))
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with serving(config, database) as server, httpx2.Client(base_url=server.url) as client:
            proxy = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
            page = client.get("/login", headers=proxy)
            cookie = page.headers["set-cookie"]
            assert cookie.startswith("__Host-clearfilm-form=")
            assert "Secure" in cookie
            cookies = {"cookie": cookie.split(";")[0]}
            data = {"name": "reader", "password": PASSWORD, "form_token": form_token(page.text)}
            answer = client.post("/login", data=data, headers=proxy | cookies)
            assert answer.headers["set-cookie"].startswith("__Host-clearfilm=")
            assert "Secure" in answer.headers["set-cookie"]
        with database.read() as session:
            assert session.scalars(select(Login.address)).one() == "192.0.2.7"


def test_everything_at_the_door_is_in_the_audit_trail_and_its_chain_holds(empty: Site) -> None:
    seed_users(empty.database)
    client = empty.client()
    log_in(client, "reader", "wrong password")
    log_in(client, "nobody", "my secret password")
    client = empty.client(Role.READER)
    client.get("/worklist")
    client.get("/admin/users")
    client.post("/logout")
    assert events(empty) == ["login failed", "login failed", "logged in", "worklist shown", "page denied", "logged out"]
    with empty.database.read() as session:
        assert audit.first_broken(session) is None
        details = str(list(session.scalars(select(Audit.detail))))
    assert "password" not in details.replace("name or password wrong", "")
