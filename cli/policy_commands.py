"""`clearfilm policy …`."""

from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

policies = typer.Typer(help="Triage policy: show, stage, release, withdraw.", no_args_is_help=True)

UserOption = Annotated[str, typer.Option("--user", help="Who signs; written to the audit trail.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why.")]
DeviceArgument = Annotated[int, typer.Argument(metavar="DEVICE", help="Its number in `clearfilm policy show`.")]


@policies.command("show")
def show_policy(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show stage, rules, devices, history, and how much was missed."""
    from cli.policy import show_policy as run

    run(config, as_json=as_json)


@policies.command("stage")
def change_stage(
    stage: Annotated[str, typer.Argument(help="off, shadow, supervised or active.")],
    user: UserOption,
    reason: ReasonOption,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take the first signature of the step up to STAGE back.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Step down at once, or sign a step up; two different users have to."""
    from cli.policy import request_stage, withdraw_step

    (withdraw_step if withdraw else request_stage)(config, stage, user, reason)


@policies.command("release")
def release_device(
    device: DeviceArgument,
    user: UserOption,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Sign that a device's films may be tagged; two different users have to."""
    from cli.policy import release_device as run

    run(config, device, user, reason)


@policies.command("withdraw")
def withdraw_device(
    device: DeviceArgument,
    user: UserOption,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take a device's release back; one user suffices."""
    from cli.policy import withdraw_device as run

    run(config, device, user, reason)
