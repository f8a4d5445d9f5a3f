"""What alerts say, in English; the web pages translate it."""

from typing import Final

from clearfilm.counts import NN_, Counted


def N_(message: str) -> str:  # noqa: N802 - the name that gettext's tools look for
    """Mark a sentence for the catalogues of the web pages."""
    return message


SENTENCES: Final[dict[str, str | Counted]] = {
    "silent_sender": NN_(
        "{subject} has sent no film for {hours} hour, in which it usually would have.",
        "{subject} has sent no film for {hours} hours; usually it would have in about {missed} of them.",
        by="hours",
    ),
    "stuck": NN_(
        "The oldest work has been waiting for {minutes} minute.",
        "The oldest work has been waiting for {minutes} minutes.",
        by="minutes",
    ),
    "failures": NN_(
        "{count} piece of work has failed and waits for somebody to look at it.",
        "{count} pieces of work have failed and wait for somebody to look at them.",
        by="count",
    ),
    "destination": N_("{subject} does not take results: {error}"),
    "disk_low": N_("The disk is nearly full ({free} GB free): films are refused below {mark} GB."),
    "disk_forecast": NN_(
        "The disk will be full in about {days} day.", "The disk will be full in about {days} days.", by="days"
    ),
    "process_down": N_("{subject} does not run."),
    "policy": N_("The triage policy went down to shadow by itself: {reason}"),
    "backup": NN_(
        "The newest backup of the database is {hours} hour old.",
        "The newest backup of the database is {hours} hours old.",
        by="hours",
    ),
    "paused": NN_(
        "{subject} has been paused for {hours} hour.", "{subject} has been paused for {hours} hours.", by="hours"
    ),
}
ADVICE: Final = {
    "silent_sender": N_("Look whether the device works and can reach this node; see the callers."),
    "stuck": N_("Look at the queues: is the worker or the destination away, or something paused?"),
    "failures": N_("Open the failed tab of the queues: causes are explained there, with what to do."),
    "destination": N_("Try the destination in its room; results are sent by themselves once it takes them."),
    "disk_low": N_("Enlarge the volume, or set retention.days. Never delete files in the data folder by hand."),
    "disk_forecast": N_("Enlarge the volume, or set retention.days."),
    "process_down": N_("Look into the log of the process; the supervisor starts it again unless it keeps failing."),
    "policy": N_("Look at the missed studies before anybody signs the way up again."),
    "backup": N_("Look into the log of the scheduler, and at the free space."),
    "paused": N_("Resume it in the queues, or let it be if the reason still holds."),
}
