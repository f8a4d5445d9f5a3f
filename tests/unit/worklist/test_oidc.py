"""What the section, the claims and the cookie of a way to the provider may be."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clearfilm import config as configuration
from clearfilm.errors import ConfigurationError, StartupError
from clearfilm.oidc_settings import GroupsOfRoles, Oidc
from db.accounts import Role
from worklist.oidc import claims, sealing
from worklist.oidc.errors import LoginRefused
from worklist.oidc.provider import Provider
from worklist.oidc.trip import LONGEST_SECONDS, Trip

WHOLE = {
    "issuer": "https://idp.example/realms/a",
    "public_url": "https://node.example",
    "client_id": "node",
    "groups": {"reader": ["readers"]},
}
NOW = 1_800_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_provider_is_off_by_default() -> None:
    assert Oidc().issuer is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://idp.example"}, "https"),
        ({"issuer": "idp.example"}, "https"),
        ({"issuer": "https://user@idp.example"}, "no user"),
        ({"issuer": "https://idp.example/?x=1"}, "query"),
        ({"issuer": "https://idp.example:99999"}, "no URL"),
        ({"public_url": "https://node.example/clearfilm"}, "no prefix"),
        ({"public_url": "http://node.example"}, "https"),
        ({"public_url": None}, "public_url: needed"),
        ({"client_id": None}, "client_id: needed"),
        ({"scopes": ["profile"]}, "openid"),
        ({"groups": {}}, "at least one group"),
        ({"groups": {"boss": ["x"]}}, "Extra inputs"),
        ({"issuer": None, "local_logins": "admins"}, "without an issuer"),
        ({"timeout_seconds": 0}, "greater than 0"),
    ],
)
def test_section_that_cannot_be_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Oidc.model_validate(WHOLE | changes)


def test_fault_in_the_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("worklist: {oidc: {issuer: 'http://idp.example', client_ids: x}}")
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(path)
    assert "worklist.oidc.issuer: must be an https:// URL" in str(caught.value)
    assert "worklist.oidc.client_ids: there is no such key" in str(caught.value)


def test_encrypted_address_needs_encrypted_pages(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = (
        "worklist: {oidc: {issuer: 'https://i.example', public_url: 'https://n.example', client_id: c,"
        " client_secret_file: secret, groups: {reader: [r]}}"
    )
    path.write_text(text + "}")
    with pytest.raises(ConfigurationError, match=r"worklist: oidc\.public_url: is https, so set certificate"):
        configuration.load(path)
    path.write_text(text + ", trusted_proxies: [127.0.0.1]}")
    loaded = configuration.load(path).worklist.oidc
    assert loaded.client_secret_file == tmp_path / "secret"
    assert loaded.redirect_uri == "https://n.example/login/oidc/callback"


def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "file"
    section = Oidc.model_validate(WHOLE | {"client_secret_file": path})
    with pytest.raises(StartupError, match=f"client_secret_file: {path} cannot be read"):
        Provider(section)
    path.write_text(" \n")
    path.chmod(0o600)
    with pytest.raises(StartupError, match="is empty"):
        Provider(section)
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(StartupError, match=f"chmod 600 {path}"):
        Provider(section)
    path.chmod(0o640)
    Provider(section)
    with pytest.raises(StartupError, match=r"worklist\.oidc\.ca_file"):
        Provider(Oidc.model_validate(WHOLE | {"ca_file": path}))


@pytest.mark.parametrize(
    ("path", "found"),
    [("groups", ["a"]), ("realm_access.roles", ["b"]), ("https://x.example/groups", ["c"]), ("groups.0", None)],
)
def test_claim_is_found_by_name_or_path(path: str, found: object) -> None:
    told = {"groups": ["a"], "realm_access": {"roles": ["b"]}, "https://x.example/groups": ["c"]}
    assert claims.look_up(told, path) == found


def test_first_role_counts_and_letters_matter() -> None:
    mapping = GroupsOfRoles(admin=("A",), radiologist=("R",), reader=("V",), auditor=("U",))
    assert claims.role_of(frozenset({"U", "V", "R"}), mapping) is Role.RADIOLOGIST
    assert claims.role_of(frozenset({"U", "V"}), mapping) is Role.READER
    assert claims.role_of(frozenset({"a", "AA", ""}), mapping) is None


@given(JSON, JSON)
def test_claims_may_be_anything(name: object, groups: object) -> None:
    section = Oidc.model_validate(WHOLE)
    found = claims.person({"iss": "i", "sub": "s", "preferred_username": name, "groups": groups}, section)
    assert found.name is None or (0 < len(found.name) <= 64 and "\\" not in found.name)
    assert found.role in (None, Role.READER)
    if found.name is None:
        with pytest.raises(LoginRefused):
            claims.require_name(found)


@given(st.text(max_size=400))
def test_cookie_of_a_way_brings_it_back(path: str) -> None:
    trip = Trip.begin(path, now=NOW)
    assert Trip.of_cookie(trip.value, now=NOW + LONGEST_SECONDS) == trip
    assert trip.value.isascii()
    assert not set(trip.value) & set(' ",;\\')


@given(st.text(max_size=200))
def test_cookie_may_be_anything(value: str) -> None:
    for text in (value, f"{NOW}.{value}", f"{NOW}.x.{value}"):
        found = Trip.of_cookie(text, now=NOW)
        assert found is None or found.began_at == NOW


@pytest.mark.parametrize("later", [-1, LONGEST_SECONDS + 1])
def test_cookie_is_good_for_ten_minutes(later: int) -> None:
    assert Trip.of_cookie(Trip.begin("/", now=NOW).value, now=NOW + later) is None


def test_every_way_is_another_one() -> None:
    one, other = Trip.begin("/", now=NOW), Trip.begin("/", now=NOW)
    values = [value for trip in (one, other) for value in (trip.state, trip.nonce, trip.verifier, trip.challenge)]
    assert len(set(values)) == 8
    assert all(len(value) == 43 for value in values)


def test_challenge_is_that_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7636, appendix B."""
    monkeypatch.setattr(Trip, "verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert Trip.begin("/", now=NOW).challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@given(st.text(max_size=12_000))
def test_sealed_token_needs_its_cookie(text: str) -> None:
    sealed = sealing.seal(text, "cookie")
    assert sealed is not None
    assert sealing.unseal(sealed, "cookie") == text
    assert sealing.unseal(sealed, "another") is None
    assert sealing.unseal(text, "cookie") is None


def test_endless_token_is_not_kept() -> None:
    assert sealing.seal("x" * 20_000, "cookie") is None
    longest = sealing.seal("x" * 16_384, "cookie")
    assert longest is not None
    assert sealing.unseal(longest, "cookie") == "x" * 16_384
