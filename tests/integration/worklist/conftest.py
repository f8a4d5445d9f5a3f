"""A running site of web pages, a client for each role, and a browser."""

import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from clearfilm.config import Config, Disk
from db import accounts, schema
from db.accounts import Role
from db.models import Study
from db.session import Database
from worklist import passwords
from worklist.app import create_app
from worklist.main import settings
from worklist.services import Services

PASSWORD = "correct horse battery"
PATIENT = "CANARY^PATIENT"


@dataclass
class Site:
    """A server with its database; users are called as their role, all with the same password."""

    server: "serving"
    config: Config
    database: Database
    clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def client(self, role: Role | None = None) -> httpx2.Client:
        """A browser-like client, logged in if there is a role. Redirects are not followed."""
        client = httpx2.Client(base_url=self.url, headers={"accept": "text/html"}, timeout=30)
        self.clients.append(client)
        if role is not None:
            token = form_token(client.get("/login").text)
            data = {"name": role.value, "password": PASSWORD, "form_token": token}
            answer = client.post("/login", data=data)
            assert answer.status_code == 303, answer.text
            client.headers["x-form-token"] = form_token(client.get("/settings").text)
        return client


def form_token(page: str) -> str:
    """The token that a page gives to its forms."""
    found = re.search(r'<meta name="form-token" content="([0-9a-f]+)">', page)
    assert found, page[:500]
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site with one user for each role; tests of a module share it."""
    # The disk of the machine that runs the tests may be as full as it likes.
    disk = Disk(low_water_percent=0, low_water_gigabytes=0)
    config = Config(data_folder=tmp_path_factory.mktemp("site"), disk=disk)
    with closing(Database(config.database_url, busy_timeout_seconds=0.5)) as database:
        schema.prepare(database)
        seed_users(database)
        seed_study(database)
        with serving(config, database) as server:
            site = Site(server, config, database)
            yield site
            site.close()


def seed_users(database: Database) -> None:
    """One user for each role."""
    with database.begin() as session:
        for role in Role:
            password_hash = passwords.hash_password(PASSWORD, name=role.value)
            accounts.add_user(session, role.value, role, password_hash, now=database.now(session))


def seed_study(database: Database, **changes: Any) -> int:
    """A study of a patient whose name must not be seen by those who may not; its number."""
    with database.begin() as session:
        now = database.now(session)
        values: dict[str, Any] = {
            "study_instance_uid": f"2.25.{uuid.uuid4().int}",
            "patient_name": PATIENT,
            "patient_id": PATIENT,
            "first_received_at": now,
            "last_received_at": now,
        }
        study = Study(**(values | changes))
        session.add(study)
        session.flush()
        return study.id


class serving:  # noqa: N801 - used as a context manager
    """Serve an application in a thread, on any free port or a socket that is bound already."""

    url: str

    def __init__(self, config: Config, database: Database, bound: socket.socket | None = None) -> None:
        self._app = create_app(config, database)
        self.services: Services = self._app.state.services
        server_settings = settings(self._app, config.worklist)
        server_settings.port = 0
        self._server = uvicorn.Server(server_settings)
        self._started = threading.Event()
        sockets = None if bound is None else [bound]
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), daemon=True)

    def __enter__(self) -> Self:
        startup = self._server.startup

        async def started(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            self._started.set()

        self._server.startup = started  # type: ignore[method-assign]
        self._thread.start()
        assert self._started.wait(30)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.services.hub.close()
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


def _logged_in(role: Role) -> object:
    @pytest.fixture(scope="module", name=f"as_{role.value}")
    def client(site: Site) -> httpx2.Client:
        return site.client(role)

    return client


as_reader = _logged_in(Role.READER)
as_radiologist = _logged_in(Role.RADIOLOGIST)
as_admin = _logged_in(Role.ADMIN)
as_auditor = _logged_in(Role.AUDITOR)


@pytest.fixture
def browser_page(chromium: Browser, site: Site) -> Iterator[Page]:
    """An empty page of a new visitor, in Shanghai's zone, 1280 pixels wide."""
    context = chromium.new_context(
        base_url=site.url, viewport={"width": 1280, "height": 800}, timezone_id="Asia/Shanghai", color_scheme="dark"
    )
    page = context.new_page()
    yield page
    context.close()


def enter(page: Page, role: Role) -> None:
    """Log in with the login form."""
    page.goto("/login")
    page.get_by_label("Name").fill(role.value)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda url: "/login" not in url)
