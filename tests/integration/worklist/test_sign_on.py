"""The door to a provider of logins: who gets in by it, as what, and what comes of answers that are wrong."""

import base64
import hmac
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, func, select, update

from clearfilm.config import Config, Worklist
from clearfilm.errors import StartupError
from clearfilm.oidc_settings import Oidc
from cli import check
from db import accounts, audit, schema
from db.accounts import Identity, Login, Role, User
from db.models import Audit
from db.session import Database
from tests.accessibility import assert_accessible
from tests.integration.worklist.conftest import PASSWORD, Site, form_token, seed_study, seed_users, serving
from tests.login_provider import CLIENT_ID, SECRET, LoginProvider, make_certificate, new_key, signed

USERS: dict[str, dict[str, Any]] = {
    "sub-anna": {"preferred_username": "Anna@Hospital.example", "realm_access": {"roles": ["x", "cxr-readers"]}},
    "sub-rad": {"preferred_username": "li.wei", "realm_access": {"roles": ["cxr-rad", "cxr-readers"]}},
    "sub-boss": {"preferred_username": "boss", "realm_access": {"roles": "cxr-admins"}},
    "sub-guest": {"preferred_username": "guest", "realm_access": {"roles": ["something else"]}},
    "sub-namesake": {"preferred_username": "READER", "realm_access": {"roles": ["cxr-admins"]}},
    "sub-odd": {"preferred_username": "DOMAIN\\odd", "realm_access": {"roles": ["cxr-readers"]}},
}
GROUPS = {"admin": ["cxr-admins"], "radiologist": ["cxr-rad"], "reader": ["cxr-readers"]}


@dataclass
class Hospital:
    """A node and a provider that know each other."""

    site: Site
    provider: LoginProvider
    callback: str
    last_record: int = 0  # of the audit trail, when the test began

    def browser(self) -> httpx2.Client:
        return self.site.client()

    def begin(self, client: httpx2.Client, next_page: str = "/") -> str:
        """The provider's address that the node sends a browser to."""
        answer = client.get("/login/oidc", params={"next": next_page})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def authorize(self, client: httpx2.Client, subject: str, next_page: str = "/") -> str:
        """Log in at the provider; the address that it sends the browser back to."""
        answer = httpx2.post(self.begin(client, next_page), data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def enter(self, client: httpx2.Client, subject: str, next_page: str = "/") -> httpx2.Response:
        return client.get(self.authorize(client, subject, next_page))

    def user(self, subject: str) -> User | None:
        with self.site.database.read() as session:
            return accounts.user_of(session, Identity(self.provider.issuer, subject))

    def records(self, event: str) -> list[dict[str, Any]]:
        with self.site.database.read() as session:
            return list(
                session.scalars(
                    select(Audit.detail).where(Audit.event == event, Audit.id > self.last_record).order_by(Audit.id)
                )
            )

    def logins(self) -> int:
        with self.site.database.read() as session:
            return session.scalar(select(func.count()).select_from(Login)) or 0


@contextmanager
def hospital(folder: Path, certificate: tuple[str, str] | None = None, **changes: Any) -> Iterator[Hospital]:
    """A running node that sends its users to a running provider; `changes` are of `worklist.oidc`."""
    secret = folder / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    with ExitStack() as stack:
        bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = bound.getsockname()[1]
        provider = stack.enter_context(LoginProvider(USERS, certificate=certificate).serve())
        values = {
            "issuer": provider.issuer,
            "public_url": f"http://127.0.0.1:{port}",
            "client_id": CLIENT_ID,
            "client_secret_file": secret,
            "groups_claim": "realm_access.roles",
            "groups": GROUPS,
            "label": "Hospital ID",
        }
        oidc = Oidc.model_validate(values | changes)
        config = Config(data_folder=folder, worklist=Worklist(oidc=oidc, port=port))
        database = stack.enter_context(closing(Database(config.database_url)))
        schema.prepare(database)
        seed_users(database)
        seed_study(database)
        server = stack.enter_context(serving(config, database, bound))
        site = Site(server, config, database)
        stack.callback(site.close)
        yield Hospital(site, provider, oidc.redirect_uri)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """Node and provider of the whole module."""
    with hospital(tmp_path_factory.mktemp("hospital")) as found:
        yield found


@pytest.fixture
def here(both: Hospital) -> Hospital:
    """As if they had never met."""
    both.provider.behave()
    services = both.site.server.services
    assert services.provider is not None
    services.provider._offer = services.provider._keys = services.provider._failed_at = None
    services.denials._minutes.clear()
    with both.site.database.begin() as session:
        session.execute(delete(Login))
        session.execute(delete(User).where(User.issuer.is_not(None)))
        both.last_record = session.scalar(select(func.max(Audit.id))) or 0
    return both


def words(answer: httpx2.Response) -> str:
    found = re.search(r'<p class="notice" role="alert">(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text[:2000]
    return unescape(found[1])


def target(answer: httpx2.Response) -> str:
    """Where a page leads by itself."""
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert found, answer.text[:2000]
    return unescape(found[1])


def test_first_login_makes_a_user_with_the_role_of_its_group(here: Hospital) -> None:
    client = here.browser()
    answer = here.enter(client, "sub-anna", "/worklist?state=unread")
    assert (answer.status_code, target(answer)) == (200, "/worklist?state=unread")
    assert client.get("/worklist").status_code == 200
    user = here.user("sub-anna")
    assert user is not None
    assert (user.name, user.role, user.password_hash) == ("anna@hospital.example", Role.READER, None)
    [record] = here.records("user added")
    assert (record["provider"], record["role"], record["user_id"]) == (here.provider.issuer, "reader", user.id)
    assert here.records("logged in")[0]["provider"] == here.provider.issuer
    with here.site.database.read() as session:
        assert audit.first_broken(session) is None


def test_second_login_finds_the_same_user_whatever_its_name_is_now(here: Hospital) -> None:
    here.enter(here.browser(), "sub-anna")
    here.provider.keys, here.provider.change_claims = (
        [new_key("1")],
        lambda claims: claims.update(preferred_username="reader"),
    )
    assert here.enter(here.browser(), "sub-anna").status_code == 200
    user = here.user("sub-anna")
    assert user is not None
    assert user.name == "anna@hospital.example"
    assert len(here.records("user added")) == 1


def test_request_to_the_provider_has_pkce_state_nonce_and_the_configured_address(here: Hospital) -> None:
    client = here.browser()
    answer = client.get("/login/oidc", headers={"host": "evil.invalid"})
    sent = {key: value[0] for key, value in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    assert sent["redirect_uri"] == here.callback
    assert (sent["response_type"], sent["scope"], sent["code_challenge_method"]) == ("code", "openid profile", "S256")
    assert len({sent["state"], sent["nonce"], sent["code_challenge"]}) == 3
    assert min(len(sent[key]) for key in ("state", "nonce", "code_challenge")) == 43
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=lax", "max-age=600", "path=/"))
    # Nothing of it can be computed from what the provider and the address bar see.
    assert not any(value in cookie for value in sent.values() if len(value) == 43)


def test_page_after_the_login_is_ours_so_that_a_strict_cookie_is_sent(here: Hospital) -> None:
    answer = here.enter(here.browser(), "sub-rad")
    cookies = answer.headers.get_list("set-cookie")
    [session] = [cookie for cookie in cookies if cookie.startswith("clearfilm=")]
    assert "samesite=strict" in session.lower()
    assert any(cookie.startswith('clearfilm-oidc=""') for cookie in cookies)
    assert target(answer) == "/"


@pytest.mark.parametrize(
    "wanted", ["//evil.invalid/", "https://evil.invalid/", "/\\evil.invalid", "/ok\r\nx: y", "javascript:alert(1)"]
)
def test_way_back_stays_on_the_site(here: Hospital, wanted: str) -> None:
    assert target(here.enter(here.browser(), "sub-rad", wanted)) == "/"


def test_way_back_is_text_only(here: Hospital) -> None:
    answer = here.enter(here.browser(), "sub-rad", '/worklist?q="><script>1</script>')
    assert "<script>1" not in answer.text
    assert target(answer) == '/worklist?q="><script>1</script>'


def test_role_is_renewed_at_each_login_and_other_logins_end_with_it(here: Hospital) -> None:
    early = here.browser()
    here.enter(early, "sub-anna")
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = lambda claims: claims.update(realm_access={"roles": ["cxr-rad"]})
    here.enter(here.browser(), "sub-anna")
    user = here.user("sub-anna")
    assert user is not None
    assert user.role is Role.RADIOLOGIST
    [record] = here.records("role changed")
    assert (record["before"], record["role"]) == ("reader", "radiologist")
    assert early.get("/worklist").status_code == 303


@pytest.mark.parametrize(("subject", "role"), [("sub-rad", Role.RADIOLOGIST), ("sub-boss", Role.ADMIN)])
def test_first_role_of_the_configuration_counts_and_a_single_group_may_be_plain_text(
    here: Hospital, subject: str, role: Role
) -> None:
    here.enter(here.browser(), subject)
    user = here.user(subject)
    assert user is not None
    assert user.role is role


@pytest.mark.parametrize(
    ("subject", "said", "reason"),
    [
        ("sub-guest", "in no group", "in no group with a role"),
        ("sub-namesake", "another user of your name", "name of another user"),
        ("sub-odd", "no name for you", "no usable name"),
    ],
)
def test_person_without_role_or_name_is_refused_in_words(here: Hospital, subject: str, said: str, reason: str) -> None:
    client = here.browser()
    answer = here.enter(client, subject)
    assert (answer.status_code, said in words(answer)) == (403, True)
    assert client.get("/worklist").status_code == 303
    assert here.user(subject) is None
    [record] = here.records("login failed")
    assert (record["reason"], record["detail"]) == (reason, subject)
    assert here.logins() == 0


def test_local_user_is_not_taken_over_by_its_name(here: Hospital) -> None:
    here.enter(here.browser(), "sub-namesake")
    with here.site.database.read() as session:
        user = accounts.user(session, "reader")
    assert user is not None
    assert (user.role, user.is_local, user.password_hash is not None) == (Role.READER, True, True)
    assert here.site.client(Role.READER).get("/worklist").status_code == 200


def test_same_subject_of_another_provider_is_somebody_else(here: Hospital) -> None:
    with here.site.database.begin() as session:
        now = here.site.database.now(session)
        other = Identity("https://elsewhere.example", "sub-rad")
        accounts.add_user_of(session, other, "somebody", Role.ADMIN, now=now)
    here.enter(here.browser(), "sub-rad")
    user = here.user("sub-rad")
    assert user is not None
    assert (user.name, user.role) == ("li.wei", Role.RADIOLOGIST)


def test_disabled_user_stays_out_whatever_the_provider_says(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    user = here.user("sub-rad")
    assert user is not None
    data = {"user": user.id, "on": "true"}
    assert here.site.client(Role.ADMIN).post("/admin/users/disable", data=data).status_code == 303
    assert client.get("/worklist").status_code == 303
    answer = here.enter(here.browser(), "sub-rad")
    assert (answer.status_code, "not use this node any more" in words(answer)) == (403, True)
    assert here.records("login failed")[-1]["reason"] == "user disabled"


def test_user_who_lost_all_groups_is_logged_out_everywhere(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = lambda claims: claims.update(realm_access={"roles": []})
    assert here.enter(here.browser(), "sub-rad").status_code == 403
    assert client.get("/worklist").status_code == 303


def test_user_of_the_provider_has_no_password_here(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    client.headers["x-form-token"] = form_token(client.get("/settings").text)
    data = {"present": "x", "password": "another good one", "again": "another good one"}
    assert 'type="password"' not in client.get("/settings").text
    assert client.post("/settings/password", data=data).status_code == 409
    user = here.user("sub-rad")
    assert user is not None
    admin = here.site.client(Role.ADMIN)
    assert here.provider.issuer.removeprefix("http://") in admin.get("/admin/users").text
    data = {"user": str(user.id), "password": "another good one"}
    assert admin.post("/admin/users/password", data=data).status_code == 409
    assert admin.post("/admin/users/role", data={"user": str(user.id), "role": "admin"}).status_code == 409
    for password in ("", "another good one", PASSWORD):
        local = here.browser()
        token = form_token(local.get("/login").text)
        data = {"name": "li.wei", "password": password or "x", "form_token": token}
        assert local.post("/login", data=data).status_code == 401
    found = here.user("sub-rad")
    assert found is not None
    assert (found.password_hash, found.role) == (None, Role.RADIOLOGIST)


# Answers that are not to be trusted


def refused(here: Hospital, answer: httpx2.Response, client: httpx2.Client, reason: str) -> dict[str, Any]:
    """Nobody was let in, it was said in words, and recorded with this reason."""
    assert answer.status_code == 403
    assert words(answer)
    assert client.get("/worklist").status_code == 303
    assert here.logins() == 0
    record = here.records("login failed")[-1]
    assert record["reason"] == reason
    return record


def with_query(url: str, **changes: str | None) -> dict[str, str]:
    values = {key: value[0] for key, value in parse_qs(urlsplit(url).query).items()}
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


@pytest.mark.parametrize("state", ["", "guessed", None])
def test_wrong_state_is_refused_and_its_code_never_used(here: Hospital, state: str | None) -> None:
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    answer = client.get("/login/oidc/callback", params=with_query(url, state=state))
    refused(here, answer, client, "begun elsewhere or too long ago")
    assert "/oauth2/token" not in here.provider.asked


def test_answer_in_another_browser_is_refused(here: Hospital) -> None:
    """Somebody sends the victim the address of a finished login of their own."""
    url = here.authorize(here.browser(), "sub-boss")
    victim = here.browser()
    refused(here, victim.get(url), victim, "begun elsewhere or too long ago")
    here.begin(victim)
    refused(here, victim.get(url), victim, "begun elsewhere or too long ago")


def test_code_is_good_once(here: Hospital) -> None:
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    cookie = client.cookies["clearfilm-oidc"]
    assert client.get(url).status_code == 200
    with here.site.database.begin() as session:
        accounts.end_logins(session, session.scalars(select(User.id).where(User.subject == "sub-rad")).one())
    thief = here.browser()
    answer = thief.get(url, headers={"cookie": f"clearfilm-oidc={cookie}"})
    refused(here, answer, thief, "the provider did not take its code")
    assert refused(here, client.get(url), client, "begun elsewhere or too long ago")


def test_code_of_another_try_is_refused(here: Hospital) -> None:
    """An injected code: the verifier belongs to the try that asked for it."""
    stolen = with_query(here.authorize(here.browser(), "sub-boss"))["code"]
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    answer = client.get("/login/oidc/callback", params=with_query(url, code=stolen))
    refused(here, answer, client, "the provider did not take its code")


def test_try_that_took_too_long_is_refused(here: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    later = time.time() + 601
    monkeypatch.setattr("worklist.rooms.sign_on.time.time", lambda: later)
    refused(here, client.get(url), client, "begun elsewhere or too long ago")


def test_provider_that_says_no_is_heard_without_its_words(here: Hospital) -> None:
    client = here.browser()
    state = with_query(here.begin(client))["state"]
    error = {"error": "access_denied", "error_description": "<script>1</script>", "state": state}
    answer = client.get("/login/oidc/callback", params=error)
    assert "<script>1" not in answer.text
    assert "not let in by Hospital ID" in words(answer)
    assert refused(here, answer, client, "the provider refused")["detail"] == "access_denied"
    error = {"error": "whatever somebody typed", "state": with_query(here.begin(client))["state"]}
    record = refused(here, client.get("/login/oidc/callback", params=error), client, "the provider refused")
    assert record["detail"] == "other"


def test_answer_of_another_issuer_to_the_browser_is_refused(here: Hospital) -> None:
    """RFC 9207: a mix-up of two providers."""
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    answer = client.get("/login/oidc/callback", params=with_query(url, iss="https://evil.invalid"))
    record = refused(here, answer, client, "the provider's answer is not to be trusted")
    assert record["detail"] == "issuer of the answer"


def test_provider_that_always_names_itself_must_do_so(here: Hospital) -> None:
    here.provider.discovery = {"authorization_response_iss_parameter_supported": True}
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    refused(here, client.get(url), client, "the provider's answer is not to be trusted")
    url = here.authorize(client, "sub-rad")
    answer = client.get("/login/oidc/callback", params=with_query(url, iss=here.provider.issuer))
    assert answer.status_code == 200


NOW = int(time.time())
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nonce of another try": (lambda claims: claims.update(nonce="x" * 43), "nonce"),
    "no nonce": (lambda claims: claims.pop("nonce"), "nonce"),
    "nonce that is no text": (lambda claims: claims.update(nonce=["x"]), "nonce"),
    "expired": (lambda claims: claims.update(exp=NOW - 3600), "exp"),
    "expiry that is no number": (lambda claims: claims.update(exp=float("nan")), "exp"),
    "no expiry": (lambda claims: claims.pop("exp"), "exp"),
    "another audience": (lambda claims: claims.update(aud="another client"), "aud"),
    "also for others": (lambda claims: claims.update(aud=[CLIENT_ID, "another client"]), "azp"),
    "given to another": (lambda claims: claims.update(azp="another client"), "azp"),
    "another issuer": (lambda claims: claims.update(iss="https://evil.invalid"), "iss"),
    "issuer with a slash more": (lambda claims: claims.update(iss=claims["iss"] + "/"), "iss"),
    "from the future": (lambda claims: claims.update(iat=NOW + 3600), "future"),
    "issued long ago": (lambda claims: claims.update(iat=NOW - 86_400), "long ago"),
    "not yet valid": (lambda claims: claims.update(nbf=NOW + 3600), "valid"),
    "no subject": (lambda claims: claims.pop("sub"), "sub"),
    "subject that is no text": (lambda claims: claims.update(sub=7), "sub"),
    "endless subject": (lambda claims: claims.update(sub="x" * 256), "sub"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_id_token_with_a_wrong_claim_is_refused(here: Hospital, name: str) -> None:
    change, detail = CHANGES[name]
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = change  # type: ignore[assignment]
    client = here.browser()
    record = refused(here, here.enter(client, "sub-rad"), client, "the provider's answer is not to be trusted")
    assert detail in record["detail"], record


def unsecured(claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def by_public_key(claims: dict[str, Any]) -> str:
    """HS256 with the public key as the secret, which everybody knows."""
    head, payload, _ = signed(claims, HONEST).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"honest"}').rstrip(b"=").decode()
    digest = hmac.digest(HONEST.as_pem(private=False), f"{head}.{payload}".encode(), "sha256")
    return f"{head}.{payload}." + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


HONEST, FOREIGN = new_key("honest"), new_key("honest")
FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "signed by another key of the same name": (lambda claims: signed(claims, FOREIGN), "signature"),
    "signed by a key of no name that is known": (lambda claims: signed(claims, new_key("new")), "signature"),
    "with its key in its header": (
        lambda claims: signed(claims, FOREIGN, jwk=FOREIGN.as_dict(private=False)),
        "signature",
    ),
    "alg none": (unsecured, "algorithm"),
    "alg HS256 with the public key": (by_public_key, "algorithm"),
    "altered": (lambda claims: signed(claims, HONEST)[:-8] + "AAAAAAAA", "signature"),
    "no token": (lambda _: "nonsense", "no signed token"),
    "endless": (lambda claims: signed({**claims, "x": "y" * 100_000}, HONEST), "too long"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_id_token_is_refused(here: Hospital, name: str) -> None:
    here.provider.forge, detail = FORGERIES[name]
    here.provider.keys = [HONEST]
    client = here.browser()
    answer = here.enter(client, "sub-rad")
    record = refused(here, answer, client, "the provider's answer is not to be trusted")
    assert detail in record["detail"], record


def test_clocks_may_be_a_minute_apart(here: Hospital) -> None:
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = lambda claims: claims.update(iat=int(time.time()) + 45, exp=int(time.time()) - 15)
    assert here.enter(here.browser(), "sub-rad").status_code == 200


def test_new_keys_of_the_provider_are_found(here: Hospital) -> None:
    here.provider.keys = [new_key("old")]
    assert here.enter(here.browser(), "sub-rad").status_code == 200
    here.provider.keys = [new_key("new"), *here.provider.keys]
    assert here.enter(here.browser(), "sub-rad").status_code == 200
    assert here.provider.asked.count("/jwks") == 2
    assert here.enter(here.browser(), "sub-rad").status_code == 200
    assert here.provider.asked.count("/jwks") == 2


def test_claims_that_the_id_token_lacks_are_asked_for_and_must_be_of_the_same_person(here: Hospital) -> None:
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = lambda claims: claims.pop("realm_access")
    assert here.enter(here.browser(), "sub-rad").status_code == 200
    assert "/userinfo" in here.provider.asked
    here.provider.change_claims = lambda claims: (claims.pop("realm_access"), claims.update(sub="sub-boss"))  # type: ignore[assignment, func-returns-value]
    answer = here.enter(here.browser(), "sub-rad")
    assert answer.status_code == 403
    assert here.records("login failed")[-1]["detail"] == "user info of somebody else"


def test_groups_that_were_left_out_are_told_from_none(here: Hospital) -> None:
    here.provider.keys = [new_key("1")]
    here.provider.change_claims = lambda claims: claims.update(realm_access={"roles": []}, hasgroups=True)
    assert "groups were left out" in words(here.enter(here.browser(), "sub-rad"))


# A provider in trouble


def test_provider_that_is_away_leaves_the_rest_as_it_is(here: Hospital) -> None:
    here.provider.is_away = True
    client = here.browser()
    answer = client.get("/login/oidc?next=/worklist")
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert "no answer from Hospital ID" in words(answer)
    assert "no answer from Hospital ID a moment ago" in client.get("/login").text
    assert here.site.client(Role.READER).get("/worklist").status_code == 200
    here.provider.is_away = False
    assert here.enter(client, "sub-rad").status_code == 200
    assert "no answer from Hospital ID a moment ago" not in here.browser().get("/login").text


def test_provider_that_goes_away_half_way_lets_nobody_in(here: Hospital) -> None:
    client = here.browser()
    url = here.authorize(client, "sub-rad")
    here.provider.is_away = True
    answer = client.get(url)
    assert (answer.status_code, here.logins()) == (503, 0)
    assert "no answer from Hospital ID" in words(answer)


def test_slow_provider_is_given_up_and_holds_nobody_else(tmp_path: Path) -> None:
    with hospital(tmp_path, timeout_seconds=0.5) as here:
        here.provider.hold = threading.Event()
        answers = []
        waiting = [threading.Thread(target=lambda: answers.append(ask(here))) for _ in range(20)]
        for thread in waiting:
            thread.start()
        # More than there are threads for pages; those have other things to do.
        assert here.site.client(Role.READER).get("/worklist").status_code == 200
        for thread in waiting:
            thread.join(30)
        assert answers == [503] * 20
        assert here.provider.asked.count("/.well-known/openid-configuration") < 20


def ask(here: Hospital) -> int:
    with httpx2.Client(base_url=here.site.url, timeout=30) as client:
        return client.get("/login/oidc").status_code


def test_provider_that_calls_itself_otherwise_is_not_used(here: Hospital, caplog: pytest.LogCaptureFixture) -> None:
    here.provider.discovery = {"issuer": "https://evil.invalid"}
    assert here.browser().get("/login/oidc").status_code == 503
    assert "set worklist.oidc.issuer" in caplog.text or any(
        "set worklist.oidc.issuer" in str(vars(record)) for record in caplog.records
    )


@pytest.mark.parametrize("url", ["http://evil.invalid/token", "ftp://x/", "", 7, "https://a b/"])
def test_endpoint_that_secrets_must_not_go_to_is_not_used(here: Hospital, url: object) -> None:
    here.provider.discovery = {"token_endpoint": url}
    assert here.browser().get("/login/oidc").status_code == 503


def test_node_that_the_provider_does_not_know_says_so_in_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hospital(tmp_path, client_id="another") as here:
        client = here.browser()
        refused(here, here.enter(client, "sub-rad"), client, "the provider did not take its code")
    assert any(getattr(record, "error", "") == "invalid_client" for record in caplog.records)


@pytest.mark.parametrize("is_known", [True, False])
def test_authority_of_the_provider_must_be_known(tmp_path: Path, is_known: bool) -> None:
    certificate = make_certificate(tmp_path)
    with hospital(tmp_path, certificate, ca_file=certificate[0] if is_known else None) as here:
        assert here.browser().get("/login/oidc").status_code == (303 if is_known else 503)
        if is_known:
            # The same authority holds for each endpoint.
            client = here.browser()
            back = httpx2.post(here.begin(client), data={"sub": "sub-rad"}, verify=trust(certificate[0]))
            assert client.get(back.headers["location"]).status_code == 200


def trust(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def test_check_asks_the_provider_and_says_what_to_register(here: Hospital) -> None:
    assert "not asked" in check._check_provider(here.site.config, ask=False)
    # In a thread of its own: a browser of another test may have left its event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        said = thread.submit(check._check_provider, here.site.config, ask=True).result(30)
    assert said == f"answers; logging out there: yes; register {here.callback} there"
    here.provider.discovery = {"issuer": "https://other.example"}
    with ThreadPoolExecutor(1) as thread, pytest.raises(StartupError, match=r"calls itself 'https://other\.example'"):
        thread.submit(check._check_provider, here.site.config, ask=True).result(30)


# Out again, and passwords beside it


def test_logging_out_goes_on_to_the_provider_with_the_token_it_gave(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    token = form_token(client.get("/worklist").text)
    cookie = {"cookie": f"clearfilm={client.cookies['clearfilm']}"}
    answer = client.post("/logout", data={"form_token": token})
    url = target(answer)
    sent = with_query(url)
    assert url.startswith(f"{here.provider.issuer}/oauth2/end_session?")
    assert sent["post_logout_redirect_uri"] == f"{here.site.config.worklist.oidc.public_url}/login"
    assert (sent["client_id"], sent["id_token_hint"].count(".")) == (CLIENT_ID, 2)
    assert here.logins() == 0
    assert here.browser().get("/worklist", headers=cookie).status_code == 303


def test_token_of_the_provider_is_kept_where_the_database_alone_does_not_show_it(here: Hospital) -> None:
    here.enter(here.browser(), "sub-rad")
    with here.site.database.read() as session:
        kept = session.scalars(select(Login.id_token)).one()
    assert kept is not None
    for part in kept.split("."):
        assert b"li.wei" not in base64.urlsafe_b64decode(part + "==")


def test_logging_out_works_while_the_provider_does_not(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    token = form_token(client.get("/worklist").text)
    here.provider.is_away = True
    services = here.site.server.services
    assert services.provider is not None
    services.provider._offer = None
    answer = client.post("/logout", data={"form_token": token})
    assert (answer.status_code, answer.headers["location"], here.logins()) == (303, "/login", 0)


@pytest.mark.parametrize("how", ["configured", "not offered"])
def test_logging_out_may_stay_here(tmp_path: Path, how: str) -> None:
    with hospital(tmp_path, log_out_at_provider=how != "configured") as here:
        if how == "not offered":
            here.provider.discovery = {"end_session_endpoint": None}
        client = here.browser()
        here.enter(client, "sub-rad")
        token = form_token(client.get("/worklist").text)
        assert client.post("/logout", data={"form_token": token}).headers["location"] == "/login"


def test_local_user_logs_out_here_only(here: Hospital) -> None:
    assert here.site.client(Role.READER).post("/logout").headers["location"] == "/login"


def test_passwords_may_be_for_administrators_only(tmp_path: Path) -> None:
    with hospital(tmp_path, local_logins="admins") as here:
        assert here.site.client(Role.ADMIN).get("/admin").status_code == 200
        bodies = []
        for name, password in (("reader", PASSWORD), ("reader", "wrong password"), ("nobody", PASSWORD)):
            client = here.browser()
            token = form_token(client.get("/login").text)
            answer = client.post("/login", data={"name": name, "password": password, "form_token": token})
            assert answer.status_code == 401
            bodies.append(answer.text.replace(form_token(answer.text), ""))
        assert len(set(bodies)) == 1
        assert "Passwords are for administrators here" in bodies[0]
        assert here.records("login failed")[0]["reason"] == "passwords are for administrators"


def test_logged_in_user_does_not_go_to_the_provider_again(here: Hospital) -> None:
    client = here.site.client(Role.READER)
    assert client.get("/login/oidc?next=/worklist").headers["location"] == "/worklist"


def test_provider_asks_anew_where_workstations_are_shared(tmp_path: Path) -> None:
    with hospital(tmp_path, prompt="login") as here:
        assert with_query(here.begin(here.browser()))["prompt"] == "login"


def test_without_a_provider_its_door_does_not_exist(site: Site) -> None:
    client = site.client()
    assert client.get("/login/oidc").status_code == 404
    assert client.get("/login/oidc/callback?state=x&code=y").status_code == 404
    assert "single sign-on" not in client.get("/login").text


def test_strangers_cannot_fill_the_audit_trail(here: Hospital) -> None:
    client = here.browser()
    for _ in range(40):
        client.get("/login/oidc/callback?state=x&code=y")
    assert len(here.records("login failed")) == 30


def test_login_that_ended_is_no_longer_there(here: Hospital) -> None:
    client = here.browser()
    here.enter(client, "sub-rad")
    with here.site.database.begin() as session:
        past = here.site.database.now(session) - here.site.server.services.limits.idle
        session.execute(update(Login).values(seen_at=past))
    assert client.get("/worklist").headers["location"].startswith("/login?next=")


# In a browser


@pytest.fixture
def page(here: Hospital, chromium: Browser) -> Iterator[Page]:
    """A new visitor's, with the provider on another site (localhost): cookies are kept back as in a hospital."""
    context = chromium.new_context(base_url=here.site.url, viewport={"width": 1280, "height": 800}, color_scheme="dark")
    found = context.new_page()
    said: list[str] = []
    found.on("console", lambda message: said.append(message.text))
    yield found
    context.close()
    assert [text for text in said if "Content Security Policy" in text] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_way_in_and_out_in_a_browser(here: Hospital, page: Page, language: str) -> None:
    elsewhere = here.provider.issuer.replace("127.0.0.1", "localhost")
    here.provider.discovery = {
        name: f"{elsewhere}/oauth2/{path}"
        for name, path in (("authorization_endpoint", "authorize"), ("end_session_endpoint", "end_session"))
    }
    page.goto("/worklist?q=abc")
    if language == "zh":
        page.get_by_role("button", name="中文").click()
    assert_accessible(page)
    go, out = {
        "en": ("Log in with Hospital ID", "Log out"),
        "zh": ("通过Hospital ID进入", "退出登录"),
    }[language]
    page.get_by_role("link", name=go).click()
    page.wait_for_url("http://localhost:*/oauth2/authorize?**")
    page.get_by_role("button", name="sub-rad", exact=True).click()
    page.wait_for_url(f"{here.site.url}/worklist?q=abc")
    expect(page.get_by_text("li.wei")).to_be_visible()
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(here.site.url)}
    assert cookies["clearfilm"]["sameSite"] == "Strict"
    assert "clearfilm-oidc" not in cookies
    # Neither the code nor the state stay in the way back.
    page.go_back()
    assert "code=" not in page.url
    page.goto("/worklist")
    page.get_by_text("li.wei").click()
    page.get_by_role("button", name=out).click()
    page.wait_for_url("http://localhost:*/oauth2/end_session?**")
    assert here.logins() == 0
    page.get_by_role("button", name="End session").click()
    page.wait_for_url(f"{here.site.url}/login")
    page.goto("/worklist")
    page.wait_for_url("**/login?next=**")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_refusal_in_a_browser_can_be_read_in_both_languages(here: Hospital, page: Page, language: str) -> None:
    page.goto("/login")
    page.get_by_role("link", name="Log in with Hospital ID").click()
    page.get_by_role("button", name="sub-guest", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("in no group that may use this node")
    assert_accessible(page)
    if language == "zh":
        page.get_by_role("button", name="中文").click()
        page.wait_for_url("**/login?next=**")
        expect(page.get_by_role("link", name="通过Hospital ID进入")).to_be_visible()


def test_administrators_still_find_their_form_by_keyboard(tmp_path: Path, chromium: Browser) -> None:
    with hospital(tmp_path, local_logins="admins") as found:
        context = chromium.new_context(base_url=found.site.url)
        page = context.new_page()
        page.goto("/login")
        expect(page.get_by_role("link", name="Log in with Hospital ID")).to_be_focused()
        expect(page.get_by_label("Name")).to_be_hidden()
        for key in ("Tab", "Enter", "Tab"):
            page.keyboard.press(key)
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("admin")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/worklist")
        context.close()
