"""Passwords, names and tokens."""

import pytest

from clearfilm.errors import UsageError
from worklist import passwords


def test_password_is_known_again_and_others_are_not() -> None:
    kept = passwords.hash_password("correct horse battery", name="anna")
    assert kept.startswith("$argon2id$")
    assert passwords.verify("correct horse battery", kept)
    assert not passwords.verify("correct horse batterY", kept)


def test_nobody_has_a_password() -> None:
    assert not passwords.verify("correct horse battery", None)


def test_both_ways_to_type_an_accent_are_one_password() -> None:
    kept = passwords.hash_password("caf\u00e9 caf\u00e9 caf\u00e9", name="anna")
    assert passwords.verify("cafe\u0301 cafe\u0301 cafe\u0301", kept)


@pytest.mark.parametrize("password", ["short", "x" * 129, "aaaaaaaaaaaa", "ANNA.EXAMPLE"])
def test_bad_password_is_refused(password: str) -> None:
    with pytest.raises(UsageError):
        passwords.hash_password(password, name="anna.example")


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "<b>", "a/b"])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        passwords.check_name(name)


def test_form_token_tells_nothing_of_the_cookie() -> None:
    token = passwords.new_token()
    assert passwords.form_token(token) != passwords.token_hash(token)
    assert passwords.form_token(token) == passwords.form_token(token)
