"""The command `clearfilm`. Each subcommand imports what it needs when it is called."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from clearfilm.errors import ClearfilmError, UsageError
from cli.access_commands import trail, users
from cli.model_commands import models
from cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from cli.policy_commands import policies

app = typer.Typer(
    help="Clearfilm: DICOM triage node for chest radiographs. Research use, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models, name="model")
cohorts = typer.Typer(help="Cohorts: labelled films, split by patient, for training.", no_args_is_help=True)
app.add_typer(cohorts, name="cohort")
app.add_typer(users, name="user")
app.add_typer(trail, name="audit")
reports = typer.Typer(help="Radiologists' reports: import, listen, label, review, audit.", no_args_is_help=True)
app.add_typer(reports, name="reports")
app.add_typer(policies, name="policy")

ReportFileOption = Annotated[
    Path | None, typer.Option("--csv", help="A file with report_id, findings, impression; default: the database.")
]


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
    run(configuration.load(config), config.resolve())


@app.command()
def worklist(
    config: ConfigOption = DEFAULT_CONFIG,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True, help="Print nothing.")] = False,
) -> None:
    """Run the web pages."""
    from cli.worklist import serve

    serve(config, quiet=supervised)


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


@app.command()
def simulate(
    arrivals: Annotated[
        Path | None, typer.Option("--arrivals", help="CSV: arrived_at, tagged, abnormal; default: the database.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, help="Radiologists who read at a time.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.01, help="Mean reading time of a study.")] = 5,
    limit: Annotated[
        float | None, typer.Option(min=0.01, help="Longest wait in minutes; default: policy.maximum_wait_minutes.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the reading times.")] = 0,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Replay arrivals: waits in order of arrival, with triage, and with the limit."""
    from cli.simulate import run_simulation

    run_simulation(config, arrivals, readers=readers, minutes=minutes, limit_minutes=limit, seed=seed, as_json=as_json)


@reports.command("import")
def import_reports(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, Excel or SR file, or a folder of SR files.")],
    mapping: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN, instead of reports.columns.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Import reports; fails if a row was refused, the rest is in."""
    from cli.reports import import_reports as run

    raise typer.Exit(run(config, source, mapping or []))


@reports.command("listen")
def listen_for_reports(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the process that takes HL7 v2 ORU^R01 over MLLP."""
    from cli.reports import listen

    listen(config)


@reports.command("label")
def label_reports(
    source: ReportFileOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the labelled file goes; with --csv.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Label a file, or the database's reports."""
    from cli.reports import label_csv, label_database

    if (source is None) != (out is None):
        raise typer.BadParameter("--csv and --out go together")
    if source is None or out is None:
        label_database(config, as_json=as_json)
        return
    raise typer.Exit(label_csv(_existing(config), source, out))


@reports.command("review")
def review_reports(
    out: Annotated[Path, typer.Option(help="Where the disputed reports go.")],
    source: ReportFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """List reports on which a second opinion disagrees with the rules."""
    from cli.reports import review

    review(_existing(config) if source else config, source, out)


@reports.command("audit")
def audit_reports(
    sample: Annotated[int | None, typer.Option(min=1, help="Draw so many reports, without labels, into --out.")] = None,
    score: Annotated[Path | None, typer.Option(help="The filled-in file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the sample goes.")] = None,
    source: ReportFileOption = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 1,
    user: Annotated[str | None, typer.Option(help="Who filled it in; keeps the labels in the database.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Measure the labels against a human reader: draw a blind sample, then score it."""
    from cli.reports import draw_audit, score_audit

    if (sample is None) == (score is None) or (sample is None) != (out is None):
        raise typer.BadParameter("either --sample N --out FILE, or --score FILE")
    if score is not None:
        score_audit(config if user else _existing(config), score, user, as_json=as_json)
    elif sample is not None and out is not None:
        draw_audit(_existing(config) if source else config, source, out, sample, seed)


def _existing(config: Path) -> Path | None:
    """Files can be labelled without a node: config.yaml may be missing if nobody named another one."""
    return None if config == DEFAULT_CONFIG and not config.exists() else config


@cohorts.command("build")
def build_cohort(
    out: Annotated[Path, typer.Option("--out", help="New folder for the manifest.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Folder with films; without it: the archive.")] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Its films: file, patient_id, label (normal/abnormal), …")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--split-key", help="Key file; default: split.key in the data folder.")
    ] = None,
    paper_split: Annotated[
        bool, typer.Option("--paper-split", help="Split films at random, not patients: measures what leakage adds.")
    ] = False,
    temporal_from: Annotated[
        datetime | None,
        typer.Option(
            "--temporal-from", formats=["%Y-%m-%d"], help="Keep films from this day on as a test of their own."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Join films and labels, split them by patient, write a manifest."""
    from cli.cohort import build_cohort as build

    build(
        config,
        out,
        folder=folder,
        table=table,
        key_file=key,
        scheme="paper" if paper_split else "patient",
        temporal_from=temporal_from.date() if temporal_from else None,
    )


@cohorts.command("export")
def export_cohort(
    cohort: Annotated[Path, typer.Argument(help="Folder of the cohort.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the films.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write de-identified copies of a cohort's films: pixels and a table, no DICOM headers."""
    from cli.cohort import export_cohort as export

    export(config, cohort, out)


@app.command()
def train(
    cohort: Annotated[Path, typer.Option("--cohort", help="Folder of the cohort.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; the bundle is in it at the end.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="For example training.epochs=3.")] = None,
    films: Annotated[Path | None, typer.Option("--films", help="Where the films are now, if they were moved.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="Who starts it; default: this system's user.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Train a model on a cohort; for several processes start it with torchrun."""
    from cli.train import run_training

    run_training(config, cohort, out, settings=settings or [], films=films, resume=resume, user=user)


@app.command()
def retrain(
    user: Annotated[str | None, typer.Option("--user", help="Who starts it; default: this system's user.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was interrupted.")] = False,
    scheduled: Annotated[bool, typer.Option("--scheduled", hidden=True)] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Train on the archive of today: cohort, training, evaluation; ends with a candidate."""
    from cli.retrain import retrain as run

    raise typer.Exit(run(config, user=user, resume=resume, scheduled=scheduled))


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for report.html and report.json.")],
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Evaluate on its test patients.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Or on all films of a folder …")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="… with this table, as for cohort build.")] = None,
    films: Annotated[Path | None, typer.Option("--films", help="Where the cohort's films are now.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Bundle to compare with; default: the node's active one.")
    ] = None,
    random_bundle: Annotated[
        Path | None, typer.Option("--random-split-bundle", help="Bundle trained on a --paper-split cohort …")
    ] = None,
    random_cohort: Annotated[
        Path | None, typer.Option("--random-split-cohort", help="… and that cohort: what leakage adds.")
    ] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="Output of reports audit --score … --json.")] = None,
    arrivals: Annotated[
        Path | None, typer.Option("--arrivals", help="The site's arrivals: one ISO 8601 time a line.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, max=100, help="Who read at the same time.")] = 1,
    utilisation: Annotated[
        float, typer.Option(min=0.05, max=0.99, help="Share of their time that they read; without --arrivals.")
    ] = 0.9,
    reading_seconds: Annotated[float, typer.Option(min=1, max=36_000, help="Mean for one study.")] = 120,
    limit_minutes: Annotated[float, typer.Option(min=0, help="Longest wait of a lowered study.")] = 60,
    prevalence: Annotated[
        float | None, typer.Option(min=0.001, max=0.999, help="Abnormal share; default: of the test films.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Measure a bundle on films that it has not learned from, and write the report."""
    from cli.evaluate import Beside, Films, Room, run_evaluation

    run_evaluation(
        config,
        bundle,
        out,
        films=Films(cohort, folder, table, films),
        beside=Beside(against, random_bundle, random_cohort, audit),
        room=Room(arrivals, readers, utilisation, reading_seconds, limit_minutes, prevalence),
    )


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
