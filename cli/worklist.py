"""`clearfilm worklist`, and what the console says about the web pages."""

from contextlib import closing
from pathlib import Path

from clearfilm import config as configuration
from clearfilm import logs
from clearfilm.config import Config
from clearfilm.process import notify_ready
from cli.terminal import say
from db.session import Database


def serve(config_path: Path, *, quiet: bool) -> None:
    """Run the web pages until SIGTERM.

    Parameters
    ----------
    config_path : pathlib.Path
        The configuration file.
    quiet : bool
        The supervisor says where they are.

    Raises
    ------
    ConfigurationError, StartupError
        Before anything is served.
    """
    from worklist.main import serve as run

    logs.configure("worklist")
    config = configuration.load(config_path)

    def ready(port: int) -> None:
        notify_ready()
        if quiet:
            return
        pages = address(config, port)
        say(f"ready: {pages}")
        with closing(Database(config.database_url)) as database:
            link = first_login(database, pages)
        if link is not None:
            say(link)

    run(config, ready, config_path)


def address(config: Config, port: int) -> str:
    """URL of the front page."""
    section = config.worklist
    host = f"[{section.address}]" if ":" in section.address else section.address
    return f"{'https' if section.certificate else 'http'}://{host}:{port}/"


def first_login(database: Database, pages: str) -> str | None:
    """The line that tells how the first administrator is made; None: there are users."""
    from worklist.logins import first_login_path

    path = first_login_path(database)
    return None if path is None else f"first login, good once and for 24 hours: {pages}{path}"
