"""`clearfilm model list | verify | activate`."""

from pathlib import Path

from clearfilm.vision.assemble import resolve_bundle
from clearfilm.vision.bundle import load_bundle, verify
from cli.node import opened
from cli.terminal import print_json, print_table, say
from db import registry


def print_models(config_path: Path, *, as_json: bool) -> None:
    """All bundles that the node knows, newest first."""
    with opened(config_path) as (_, database), database.read() as session:
        rows = registry.known(session)
    if as_json:
        print_json(
            [
                {
                    "digest": row.digest,
                    "name": row.name,
                    "version": row.version,
                    "state": row.state.value,
                    "operating_point": row.operating_point,
                    "added_at": row.added_at,
                    "activated_at": row.activated_at,
                }
                for row in rows
            ]
        )
        return
    cells: list[list[object]] = [
        [row.digest[:12], row.name, row.version, row.state.value, row.activated_at] for row in rows
    ]
    print_table("", ["digest", "name", "version", "state", "active since"], cells)


def verify_bundle(folder: Path) -> None:
    """Check a bundle against its manifest. Raises BundleError."""
    say(f"{folder}: unaltered, digest {verify(folder)}")


def activate_bundle(config_path: Path, bundle: str, user: str) -> None:
    """Activate a known bundle by its digest, or a folder, which is verified and registered first."""
    with opened(config_path) as (config, database):
        digest = bundle
        if Path(bundle).is_dir():
            loaded = load_bundle(resolve_bundle(Path(bundle).resolve(), config.data_folder))
            digest = loaded.digest
            point = loaded.description.operating_point
            with database.begin() as session:
                registry.register(
                    session,
                    digest=digest,
                    name=loaded.description.name,
                    version=loaded.description.version,
                    path=str(loaded.folder),
                    operating_point=point.model_dump(mode="json") if point else None,
                    now=database.now(session),
                )
        with database.begin() as session:
            row = registry.activate(session, digest, actor=user, now=database.now(session))
    say(f"active: {row.name} {row.version} ({row.digest[:12]})")
