"""`clearfilm model …`."""

from pathlib import Path
from typing import Annotated

import typer

from clearfilm.errors import UsageError
from cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

models = typer.Typer(help="Model bundles: add, watch, promote, roll back.", no_args_is_help=True)

DigestArgument = Annotated[str, typer.Argument(help="Digest of the bundle, or its beginning.")]
UserOption = Annotated[str, typer.Option("--user", help="Who signs.")]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Why; kept with the signature. Asked for on a terminal.")
]
ByOption = Annotated[str | None, typer.Option("--user", help="Who does it; default: this system's user.")]


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


@models.command("add")
def add_model(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    evaluation: Annotated[Path | None, typer.Option("--evaluation", help="Folder that evaluate has written.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of its training run.")] = None,
    user: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Register a bundle as a candidate: verified and copied into the data folder."""
    from cli.models import add_bundle

    add_bundle(config, bundle, evaluation=evaluation, run=run, user=user, as_json=as_json)


@models.command("show")
def show_model(digest: DigestArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Tell everything about one bundle: figures, gates, signatures, training."""
    from cli.show_model import show_bundle

    show_bundle(config, digest, as_json=as_json)


@models.command("shadow")
def shadow_model(
    digest: DigestArgument,
    stop: Annotated[bool, typer.Option("--stop", help="End it.")] = False,
    user: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Have a candidate read every live film silently, beside the active model."""
    from cli.models import set_shadow

    set_shadow(config, digest, stop=stop, user=user, as_json=as_json)


@models.command("promote")
def promote_model(
    digest: DigestArgument,
    user: UserOption,
    reason: ReasonOption = None,
    waive: Annotated[
        list[str] | None, typer.Option("--waive", help="GATE=REASON: a failed gate that shall not count.")
    ] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the first signature back instead.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check all gates and sign; the second user's signature activates the bundle."""
    from cli.promote import promote, withdraw_signatures

    if withdraw:
        if waive:
            raise UsageError("--withdraw and --waive exclude each other")
        withdraw_signatures(config, digest, user=user, reason=reason, as_json=as_json)
        return
    raise typer.Exit(promote(config, digest, user=user, reason=reason, waive=waive or [], as_json=as_json))


@models.command("rollback")
def roll_back_model(
    user: ByOption = None,
    reason: ReasonOption = None,
    digest: Annotated[
        str | None, typer.Argument(help="Bundle to go back to; default: the one before the active one.")
    ] = None,
    list_studies: Annotated[
        bool, typer.Option("--list", help="Print the UIDs of studies that the bundle that goes has decided.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier bundle the active one again, at once."""
    from cli.promote import roll_back

    roll_back(config, digest, user=user, reason=reason, list_studies=list_studies, as_json=as_json)


@models.command("reconclude")
def conclude_again(
    digest: DigestArgument,
    reported: Annotated[
        bool, typer.Option("--reported", help="Also studies that have a radiologist's report already.")
    ] = False,
    user: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Have the active model answer the studies whose answer is still this bundle's."""
    from cli.promote import reconclude

    reconclude(config, digest, user=user, reported=reported, as_json=as_json)


@models.command("lineage")
def trace_lineage(
    identifier: Annotated[str, typer.Argument(help="UID of a result or study, or digest of a bundle.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Walk back from an answer to films, bundle, training run, cohort and labels."""
    from cli.lineage import print_lineage

    print_lineage(config, identifier, as_json=as_json)


@models.command("runs")
def list_runs(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List training runs, also those that failed or died."""
    from cli.lineage import print_runs

    print_runs(config, as_json=as_json)
