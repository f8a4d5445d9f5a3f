"""The door: logging in and out, and who is let through."""

import httpx2

from db.accounts import Role
from tests.integration.worklist.conftest import Site


def test_user_sees_the_page_of_the_role(as_reader: httpx2.Client) -> None:
    assert as_reader.get("/").headers["location"] == "/worklist"
    assert as_reader.get("/worklist").status_code == 200


def test_logout_ends_the_login(site: Site) -> None:
    client = site.client(Role.ADMIN)
    cookies = dict(client.cookies)
    assert client.post("/logout").status_code == 303
    with httpx2.Client(base_url=site.url, cookies=cookies) as thief:
        assert thief.get("/worklist").status_code == 401


def test_change_without_the_token_of_a_page_is_denied(site: Site) -> None:
    client = site.client(Role.READER)
    del client.headers["x-form-token"]
    assert client.post("/settings/theme", data={"theme": "light"}).status_code == 403
