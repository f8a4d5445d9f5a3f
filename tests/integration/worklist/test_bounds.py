"""What strangers and careless programs cannot take away from others: connections, threads, streams."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from clearfilm.config import Config, Worklist
from db import schema
from db.accounts import Role
from db.session import Database
from tests.integration.worklist.conftest import PASSWORD, Site, form_token, seed_study, seed_users, serving
from tests.waiting import until
from worklist import connections, events, passwords

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
FORM = (
    b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(connections, "READ_SECONDS", 0.3)


def connect(site: Site) -> socket.socket:
    parts = urlsplit(site.url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=30)


def is_cut(connection: socket.socket) -> bool:
    """The other side ends it, within the socket's time."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "said", [b"", b"G", HEAD, FORM, FORM + b"name=anna"], ids=["silence", "G", "head", "form", "body"]
)
def test_request_that_does_not_come_to_an_end_is_cut(site: Site, said: bytes) -> None:
    with connect(site) as connection:
        connection.sendall(said)
        assert is_cut(connection)


@pytest.mark.usefixtures("quick")
def test_drops_do_not_lengthen_the_span(site: Site) -> None:
    with connect(site) as connection:
        ended = threading.Event()

        def drip() -> None:
            try:
                while not ended.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                pass

        connection.sendall(HEAD + b"X-Long: ")
        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert is_cut(connection)
        finally:
            ended.set()
            dripping.join(30)


@pytest.mark.usefixtures("quick")
def test_answer_that_nobody_reads_is_cut(site: Site) -> None:
    server = site.server._server
    with connect(site) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall((HEAD.replace(b"/livez", b"/static/vendor/htmx.min.js") + b"\r\n") * 200)
        until(lambda: len(server.server_state.connections) == 1)
        until(lambda: not server.server_state.connections)


@pytest.mark.usefixtures("quick")
def test_open_page_stays_although_it_says_nothing(site: Site) -> None:
    """Its request has come to its end; the answer goes on."""
    site.server.services.hub.heartbeat_seconds = 0.2
    try:
        client = site.client(Role.READER)
        with client.stream("GET", "/events") as answer:
            lines = (line for line in answer.iter_lines() if line == ": still here")
            assert len([next(lines) for _ in range(4)]) == 4
    finally:
        site.server.services.hub.heartbeat_seconds = events.HEARTBEAT_SECONDS


def test_crowd_from_one_address_leaves_room_for_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ADDRESS", 5)
    server = site.server._server
    until(lambda: not server.server_state.connections)
    with ExitStack() as stack:
        crowd = [stack.enter_context(closing(connect(site))) for _ in range(5)]
        until(lambda: len(server.server_state.connections) == 5)
        with closing(connect(site)) as late:
            assert is_cut(late)
        # From another address of this machine.
        parts = urlsplit(site.url)
        with socket.create_connection(("127.0.0.1", parts.port or 0), 30, ("127.0.0.2", 0)) as other:
            other.sendall(HEAD + b"\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
        crowd[0].sendall(HEAD + b"\r\n")
        assert crowd[0].recv(12) == b"HTTP/1.1 200"


def test_all_people_may_come_from_the_address_of_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ADDRESS", 2)
    config = Config(data_folder=tmp_path, worklist=Worklist(trusted_proxies=("127.0.0.0/8",)))
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        with serving(config, database) as server, ExitStack() as stack:
            port = urlsplit(server.url).port or 0
            crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(6)]
            crowd[-1].sendall(HEAD + b"\r\n")
            assert crowd[-1].recv(12) == b"HTTP/1.1 200"


def test_login_has_so_many_streams(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_OF_LOGIN", 3)
    client, other = site.client(Role.READER), site.client(Role.READER)
    heard = []  # a stream ends with its iterator

    def opened(stack: ExitStack, by: httpx2.Client) -> int:
        answer = stack.enter_context(by.stream("GET", "/events"))
        heard.append(answer.iter_lines())
        next(heard[-1])
        return answer.status_code

    with ExitStack() as stack:
        for number in range(1, 4):
            assert opened(stack, client) == 200
            until(lambda number=number: len(site.server.services.hub._listeners) == number)  # type: ignore[misc]
        assert opened(stack, client) == 429
        assert opened(stack, other) == 200
    heard.clear()
    until(lambda: not site.server.services.hub._listeners)
    with ExitStack() as stack:
        assert opened(stack, client) == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1000001",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -1",
    ],
    ids=["large", "chunked", "both", "two lengths", "negative"],
)
def test_large_or_ambiguous_request_is_refused_before_anything_reads_it(site: Site, head: bytes) -> None:
    smuggled = b"GET /worklist HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(site) as connection:
        connection.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + smuggled)
        first = connection.recv(65_536)
        assert first[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400"), first
        # Whatever follows is no second request.
        rest = first
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65_536):
            rest += piece
    assert rest.count(b"HTTP/1.1 ") == 1, rest


@pytest.fixture
def slow_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checks of passwords end when the event is set."""
    go_on = threading.Event()
    honest = passwords.verify

    def verify(password: str, password_hash: str | None) -> bool:
        go_on.wait(30)
        return honest(password, password_hash)

    monkeypatch.setattr(passwords, "verify", verify)
    yield go_on
    go_on.set()


def test_crowd_at_the_door_leaves_the_threads_to_the_pages(tmp_path: Path, slow_check: threading.Event) -> None:
    config = Config(data_folder=tmp_path)
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        seed_study(database)
        with serving(config, database) as server:
            site = Site(server, config, database)
            slow_check.set()
            reader = site.client(Role.READER)
            slow_check.clear()
            answers: list[int] = []
            crowd = [threading.Thread(target=lambda: answers.append(try_password(site.url))) for _ in range(20)]
            for thread in crowd:
                thread.start()
            until(lambda: server.services.password_checks.statistics().tasks_waiting == 18)
            assert reader.get("/worklist").status_code == 200
            assert answers == []
            slow_check.set()
            for thread in crowd:
                thread.join(60)
            # Those that were checked together with the ones before them do not add to the number of tries.
            assert answers.count(401) <= 6
            assert set(answers) == {401, 429}
            site.close()


def try_password(url: str) -> int:
    with httpx2.Client(base_url=url, timeout=60) as client:
        token = form_token(client.get("/login").text)
        data = {"name": "reader", "password": "wrong password", "form_token": token}
        return client.post("/login", data=data).status_code


def test_language_that_does_not_exist_harms_no_page_about_trouble(site: Site) -> None:
    with site.database.begin() as session:
        session.connection().exec_driver_sql("ALTER TABLE logins RENAME TO elsewhere")
    try:
        headers = {"cookie": "language=tlh; clearfilm=x"}
        answer = site.client().get("/worklist", headers=headers)
    finally:
        with site.database.begin() as session:
            session.connection().exec_driver_sql("ALTER TABLE elsewhere RENAME TO logins")
    assert (answer.status_code, "The database does not answer" in answer.text) == (503, True)
    assert PASSWORD not in answer.text
