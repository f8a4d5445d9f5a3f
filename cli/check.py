"""`clearfilm check`: is this node fit to start, and would its destinations take its results?"""

import asyncio
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from clearfilm import config as configuration
from clearfilm.config import Config, Destination
from clearfilm.dicom.rehearsal import rehearse
from clearfilm.errors import ClearfilmError, StartupError
from cli.terminal import complain, say


def run_checks(config_path: Path, *, echo: bool) -> int:
    """Run all checks and tell every fault.

    Returns
    -------
    int
        0: all is well; 1: something is not. A wrong configuration raises ConfigurationError.
    """
    config = configuration.load(config_path)
    say(f"configuration {config_path}: valid")
    checks: list[tuple[str, Callable[[], str]]] = [
        ("data folder", lambda: _check_folder(config)),
        ("database", lambda: _check_database(config)),
        ("model", lambda: _check_model(config)),
    ]
    if config.worklist.oidc.issuer is not None:
        checks.append(("login provider", lambda: _check_provider(config, ask=echo)))
    if echo:
        checks += [
            (f"destination {entry.name}", lambda entry=entry: _check_destination(config, entry))  # type: ignore[misc]
            for entry in config.destinations
        ]
    faults = 0
    for name, check in checks:
        try:
            say(f"{name}: {check()}")
        except ClearfilmError as error:
            faults += 1
            complain(f"{name}: {error}")
    return 1 if faults else 0


def _check_folder(config: Config) -> str:
    folder = config.data_folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / "writable.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartupError(f"{folder} is not writable: {error.strerror}") from error
    usage = shutil.disk_usage(folder)
    mark = config.disk.low_water(usage.total)
    numbers = f"{usage.free / 1e9:.1f} GB free, films are refused below {mark / 1e9:.1f} GB"
    if usage.free < mark:
        raise StartupError(f"{numbers}: make room, or lower disk.low_water_…")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return f"{numbers}; warning: other users may open it (mode {mode:04o}), better `chmod 700 {folder}`"
    return numbers


def _check_database(config: Config) -> str:
    from db import schema
    from db.session import Database

    with closing(Database(config.database_url)) as database:
        found = schema.version(database)
    if found is None:
        return "none yet; the first start makes it"
    return "answers" if found == schema.HEAD else f"has schema {found}; the next start brings it to {schema.HEAD}"


def _check_model(config: Config) -> str:
    from clearfilm.vision.assemble import resolve_bundle
    from clearfilm.vision.bundle import verify
    from db import registry, schema
    from db.session import Database

    row = None
    with closing(Database(config.database_url)) as database:
        found = schema.version(database)
        if found == schema.HEAD:
            with database.read() as session:
                row = registry.active(session)
        elif found is not None:
            return "not checked: the database is of an earlier version"
    folder = Path(row.path) if row else resolve_bundle(config.model.bundle, config.data_folder)
    return f"{folder.name}: unaltered, digest {verify(folder)[:12]}"


def _check_provider(config: Config, *, ask: bool) -> str:
    from worklist.oidc.errors import ProviderAway
    from worklist.oidc.provider import Provider

    section = config.worklist.oidc
    provider = Provider(section)
    where = f"register {section.redirect_uri} there"
    if not ask:
        return f"not asked, --echo does; {where}"
    try:
        return f"{asyncio.run(provider.check())}; {where}"
    except ProviderAway as error:
        raise StartupError(str(error)) from error


def _check_destination(config: Config, destination: Destination) -> str:
    found = rehearse(config.node.ae_title, destination)
    if not found.capture or found.report is None:
        lacks = "Secondary Captures" if not found.capture else "structured reports (TID 1500 in any SR class)"
        raise StartupError(f"{destination.name} answers, but does not accept {lacks}")
    commitment = "yes" if found.commitment else "no"
    return f"answers; takes Secondary Capture and {found.report}; storage commitment: {commitment}"
