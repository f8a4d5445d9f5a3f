"""What alerts say, in English; the web pages translate it."""

from typing import Final


def N_(message: str) -> str:  # noqa: N802 - the name that gettext's tools look for
    """Mark a sentence for the catalogues of the web pages."""
    return message


SENTENCES: Final = {
    "silent_sender": N_(
        "{subject} has sent no film for {hours} hours; usually it would have in about {missed} of them."
    ),
    "stuck": N_("The oldest work has been waiting for {minutes} minutes."),
    "failures": N_("{count} pieces of work have failed and wait for somebody to look at them."),
    "destination": N_("{subject} does not take results: {error}"),
    "disk_low": N_("The disk is nearly full ({free} GB free): films are refused below {mark} GB."),
    "disk_forecast": N_("The disk will be full in about {days} days."),
    "process_down": N_("{subject} does not run."),
    "policy": N_("The triage policy went down to shadow by itself: {reason}"),
    "backup": N_("The newest backup of the database is {hours} hours old."),
    "paused": N_("{subject} has been paused for {hours} hours."),
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
