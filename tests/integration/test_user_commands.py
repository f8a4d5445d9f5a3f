"""`clearfilm user` and `clearfilm audit`."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from clearfilm.errors import ClearfilmError, UsageError
from cli import audit as audit_commands
from cli import users
from cli.node import opened
from db import accounts
from db.accounts import Limits, Role
from db.models import Audit
from worklist import passwords

PASSWORD = "correct horse battery"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("data_folder: data\n")
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\nsecond line\n")
    return path


@pytest.fixture
def anna(config: Path, password_file: Path) -> str:
    users.add(config, "Anna", "reader", password_file)
    return "anna"


def verify(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = audit_commands.verify(config, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def test_user_is_listed_without_any_secret(config: Path, anna: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    users.print_users(config, as_json=True)
    [row] = json.loads(capsys.readouterr().out)
    assert (row["name"], row["role"], row["disabled_at"]) == (anna, "reader", None)
    assert row.keys() == {"name", "role", "provider", "created_at", "disabled_at"}


def test_password_comes_from_the_first_line_of_the_file(config: Path, anna: str) -> None:
    with opened(config) as (_, database), database.read() as session:
        user = accounts.user(session, anna)
    assert user is not None
    assert passwords.verify(PASSWORD, user.password_hash)


def test_name_is_taken_once_whatever_its_case(config: Path, anna: str, password_file: Path) -> None:
    with pytest.raises(ClearfilmError, match="already"):
        users.add(config, "ANNA", "admin", password_file)


@pytest.mark.parametrize(("name", "role"), [("berta", "king"), ("b b", "reader")])
def test_role_or_name_that_cannot_be_is_wrong_usage(config: Path, password_file: Path, name: str, role: str) -> None:
    with pytest.raises(UsageError):
        users.add(config, name, role, password_file)


def test_short_password_is_wrong_usage(config: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(UsageError, match="10 to 128"):
        users.add(config, "berta", "reader", tmp_path / "short")


def test_missing_user_is_named(config: Path, anna: str) -> None:
    with pytest.raises(ClearfilmError, match="no user berta"):
        users.disable(config, "berta", undo=False)


@pytest.mark.parametrize("change", ["disable", "role", "password"])
def test_each_change_ends_the_logins_of_the_user(config: Path, anna: str, tmp_path: Path, change: str) -> None:
    limits = Limits(timedelta(hours=1), timedelta(hours=1))
    with opened(config) as (_, database), database.begin() as session:
        user = accounts.user(session, anna)
        assert user is not None
        accounts.open_login(session, user.id, "0" * 64, "", limits=limits, now=database.now(session))
    (tmp_path / "new").write_text("another good one")
    if change == "disable":
        users.disable(config, anna, undo=False)
    elif change == "role":
        users.change_role(config, anna, "admin")
    else:
        users.change_password(config, anna, tmp_path / "new")
    with opened(config) as (_, database), database.read() as session:
        assert accounts.find_login(session, "0" * 64, limits=limits, now=database.now(session)) is None
        user = accounts.user(session, anna)
        assert user is not None
        assert (user.disabled_at is not None) == (change == "disable")
        assert (user.role is Role.ADMIN) == (change == "role")
        assert passwords.verify("another good one", user.password_hash) == (change == "password")


def test_disabled_user_can_be_let_in_again(config: Path, anna: str) -> None:
    users.disable(config, anna, undo=False)
    users.disable(config, anna, undo=True)
    with opened(config) as (_, database), database.read() as session:
        user = accounts.user(session, anna)
    assert user is not None
    assert user.disabled_at is None


def test_every_change_is_audited_and_the_chain_holds(
    config: Path, anna: str, capsys: pytest.CaptureFixture[str]
) -> None:
    users.change_role(config, anna, "auditor")
    users.disable(config, anna, undo=False)
    code, found = verify(config, capsys)
    assert (code, found["holds"], found["records"], found["first_broken"]) == (0, True, 3, None)


@pytest.mark.parametrize("harm", ["changed", "removed", "last removed"])
def test_harm_to_the_trail_is_found(config: Path, anna: str, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    users.change_role(config, anna, "auditor")
    users.disable(config, anna, undo=False)
    _, before = verify(config, capsys)
    with opened(config) as (_, database), database.begin() as session:
        entries = session.scalars(select(Audit).order_by(Audit.id)).all()
        if harm == "changed":
            entries[1].detail = {**entries[1].detail, "role": "reader"}
        else:
            session.execute(delete(Audit).where(Audit.id == entries[1 if harm == "removed" else 2].id))
    code, after = verify(config, capsys)
    if harm == "last removed":
        # A chain cannot know of its missing end: that takes a hash that was noted before.
        assert (code, after["records"]) == (0, 2)
        assert audit_commands.verify(config, as_json=True, contains=str(before["last_hash"])) == 1
        assert audit_commands.verify(config, as_json=True, contains=str(after["last_hash"])) == 0
    else:
        assert (code, after["holds"]) == (1, False)


def test_export_is_one_object_a_line_in_the_order_of_the_chain(config: Path, anna: str, tmp_path: Path) -> None:
    users.disable(config, anna, undo=False)
    audit_commands.export(config, tmp_path / "trail.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trail.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["user added", "user disabled"]
    assert lines[1]["previous_hash"] == lines[0]["hash"]


def with_provider(config: Path) -> None:
    config.write_text(
        "data_folder: data\nworklist: {oidc: {issuer: 'https://idp.example', public_url: 'http://localhost:1',"
        " client_id: c, groups: {reader: [r]}}}\n"
    )


def test_linked_user_logs_in_at_the_provider_only(
    config: Path, anna: str, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClearfilmError, match=r"worklist\.oidc\.issuer"):
        users.link(config, anna, "sub-1")
    with_provider(config)
    users.link(config, anna, "sub-1")
    with opened(config) as (_, database), database.read() as session:
        user = accounts.user_of(session, accounts.Identity("https://idp.example", "sub-1"))
        assert user is not None
        assert (user.name, user.password_hash) == (anna, None)
        assert "user linked" in session.scalars(select(Audit.event)).all()
    for change in (
        lambda: users.change_password(config, anna, password_file),
        lambda: users.change_role(config, anna, "admin"),
        lambda: users.link(config, anna, "sub-2"),
    ):
        with pytest.raises(ClearfilmError, match="change them there"):
            change()
    users.add(config, "berta", "reader", password_file)
    with pytest.raises(ClearfilmError, match="is anna already"):
        users.link(config, "berta", "sub-1")
    with pytest.raises(UsageError):
        users.link(config, "berta", "x" * 256)
    capsys.readouterr()
    users.print_users(config, as_json=True)
    assert [row["provider"] for row in json.loads(capsys.readouterr().out)] == ["https://idp.example", None]
