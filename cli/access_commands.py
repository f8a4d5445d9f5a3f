"""`clearfilm user …` and `clearfilm audit …`: thin, as in `cli/main.py`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

users = typer.Typer(help="Users of the web pages: add, list, disable, password, role, link.", no_args_is_help=True)
trail = typer.Typer(help="The audit trail: verify, export.", no_args_is_help=True)

PasswordFileOption = Annotated[
    Path | None, typer.Option("--password-file", help="Its first line is the password; default: it is asked.")
]


@users.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="For logging in.")],
    role: Annotated[str, typer.Option("--role", help="reader, radiologist, admin or auditor.")],
    password_file: PasswordFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Add somebody who may log in."""
    from cli.users import add

    add(config, name, role, password_file)


@users.command("list")
def list_users(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List everybody who may log in, now or once."""
    from cli.users import print_users

    print_users(config, as_json=as_json)


@users.command("disable")
def disable_user(
    name: Annotated[str, typer.Argument()],
    undo: Annotated[bool, typer.Option("--undo", help="Let the user log in again.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Log a user out everywhere, and let nobody log in under this name."""
    from cli.users import disable

    disable(config, name, undo=undo)


@users.command("password")
def change_password(
    name: Annotated[str, typer.Argument()],
    password_file: PasswordFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Give a user a new password; ends all logins of this user."""
    from cli.users import change_password as change

    change(config, name, password_file)


@users.command("role")
def change_role(
    name: Annotated[str, typer.Argument()],
    role: Annotated[str, typer.Argument(help="reader, radiologist, admin or auditor.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Give a user another role; ends all logins of this user."""
    from cli.users import change_role as change

    change(config, name, role)


@users.command("link")
def link_user(
    name: Annotated[str, typer.Argument()],
    subject: Annotated[str, typer.Option("--subject", help="What the provider calls the user: the claim `sub`.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Have a local user log in at the provider of logins from now on; ends password and logins of this user."""
    from cli.users import link

    link(config, name, subject)


@trail.command("verify")
def verify_trail(
    contains: Annotated[
        str | None, typer.Option("--contains", help="A last hash noted earlier, which must still be in the chain.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check the chain of the audit trail; fails if a record was changed or removed."""
    from cli.audit import verify

    raise typer.Exit(verify(config, as_json=as_json, contains=contains))


@trail.command("export")
def export_trail(
    out: Annotated[Path | None, typer.Option("--out", help="File; default: standard output.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write the audit trail, one JSON object a line."""
    from cli.audit import export

    export(config, out)
