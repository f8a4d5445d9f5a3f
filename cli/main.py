"""The command `clearfilm`. Each subcommand imports what it needs when it is called."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clearfilm.errors import ClearfilmError, UsageError

app = typer.Typer(
    help="Clearfilm: DICOM triage node for chest radiographs. Research use, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="Model bundles: list, verify, activate.", no_args_is_help=True)
app.add_typer(models, name="model")

ConfigOption = Annotated[Path, typer.Option("--config", envvar="CLEARFILM_CONFIG", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]
DEFAULT_CONFIG = Path("config.yaml")


@app.command()
def up(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run all processes of the node under one supervisor."""
    from cli.supervisor import supervise

    raise typer.Exit(supervise(config))


@app.command()
def storescp(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run one listener process."""
    from clearfilm import config as configuration
    from clearfilm import logs
    from clearfilm.process import notify_ready
    from storescp.main import serve

    logs.configure("storescp")
    serve(configuration.load(config), lambda _port: notify_ready())


@app.command()
def worker(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run one analysing process."""
    from clearfilm import config as configuration
    from clearfilm import logs
    from worker.main import analyse_and_conclude

    logs.configure("worker")
    analyse_and_conclude(configuration.load(config))


@app.command()
def deliver(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the process that sends results."""
    from clearfilm import config as configuration
    from clearfilm import logs
    from worker.main import deliver as run

    logs.configure("deliver")
    run(configuration.load(config))


@app.command()
def schedule(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the process that works by the clock; one for each database."""
    from clearfilm import config as configuration
    from clearfilm import logs
    from worker.main import schedule as run

    logs.configure("schedule")
    run(configuration.load(config))


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    to: Annotated[str, typer.Option("--to", help="AE@HOST:PORT")],
    calling: Annotated[str, typer.Option("--from", help="Our AE title.")] = "MODALITY",
) -> None:
    """Send DICOM files by C-STORE; fails if any was refused."""
    from cli.send import send_files

    raise typer.Exit(send_files(paths, to, calling))


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Count studies, films, jobs and deliveries by state."""
    from cli.status import print_status

    print_status(config, as_json=as_json)


@app.command()
def study(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show the whole timeline of one study."""
    from cli.status import print_study

    print_study(config, uid, as_json=as_json)


@app.command()
def resend(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    to: Annotated[list[str] | None, typer.Option("--to", help="Destination; default: all.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a study's results again: the same bytes, no new analysis."""
    from cli.operate import resend_study

    resend_study(config, uid, to)


@app.command()
def retry(
    uid: Annotated[str | None, typer.Argument(help="Study Instance UID.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    everything: Annotated[bool, typer.Option("--all", help="All studies of which something failed.")] = False,
) -> None:
    """Try the failed analyses, conclusion and deliveries of a study, or of all, again."""
    from cli.operate import retry_all, retry_study

    if (uid is None) is not everything:
        raise UsageError("name one study, or give --all")
    if uid is None:
        retry_all(config)
    else:
        retry_study(config, uid)


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    echo: Annotated[bool, typer.Option("--echo", help="Call every destination too.")] = False,
) -> None:
    """Validate configuration, folders, database and model; with --echo also the destinations."""
    from cli.check import run_checks

    raise typer.Exit(run_checks(config, echo=echo))


@app.command()
def demo(
    config: ConfigOption = DEFAULT_CONFIG,
    samples: Annotated[Path, typer.Option(help="Films to send.")] = Path("samples"),
    once: Annotated[bool, typer.Option("--check", help="End when all results are back.")] = False,
) -> None:
    """Run the node with sample films and an embedded test PACS."""
    from cli.demo import run_demo

    raise typer.Exit(run_demo(config, samples, once=once))


@app.command()
def conformance(
    config: Annotated[Path | None, typer.Option("--config", help="Tell one site's values, not the defaults.")] = None,
) -> None:
    """Print the DICOM conformance statement."""
    from cli.conformance import print_statement

    print_statement(config)


@models.command("list")
def list_models(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the bundles that this node knows."""
    from cli.models import print_models

    print_models(config, as_json=as_json)


@models.command("verify")
def verify_model(bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")]) -> None:
    """Check every file of a bundle against its manifest."""
    from cli.models import verify_bundle

    verify_bundle(bundle)


@models.command("activate")
def activate_model(
    bundle: Annotated[str, typer.Argument(help="Folder, or beginning of the digest of a known bundle.")],
    user: Annotated[str, typer.Option("--user", help="Who activates it; written to the audit trail.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a bundle the active one; running workers follow at once."""
    from cli.models import activate_bundle

    activate_bundle(config, bundle, user)


def main() -> None:
    """Entry point: one sentence and the right exit code instead of a traceback for our own errors."""
    os.umask(0o077)  # films, results and the database hold names of patients
    try:
        app()
    except ClearfilmError as error:
        sys.stderr.write(f"clearfilm: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
