"""Why something failed, in plain words, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from db.operations import Reason
from worklist.templates import N_


@dataclass(frozen=True)
class Cause:
    """Sentences of the catalogue."""

    key: str
    title: str
    advice: str


@dataclass(frozen=True)
class Group:
    """Failures with one cause at one place."""

    cause: Cause
    kind: str  # film, study or delivery
    destination: str
    count: int
    latest: datetime
    reasons: tuple[str, ...]  # as they stand in the database


LOST = Cause(
    "lost",
    N_("The stored film is missing on the disk"),
    N_("Restore it from the backup, or have the sender send it again; then it is analysed by itself."),
)
CRASHED = Cause(
    "crashed",
    N_("The worker ended without a result, three times"),
    N_("Keep the film for a bug report; look into the log of the worker. Trying again is safe."),
)
UNEXPECTED = Cause(
    "unexpected",
    N_("An unexpected error in the worker"),
    N_("Look into the log at the time of the job. Try one again; if it fails the same way, report it."),
)
CANCELLED = Cause("cancelled", N_("Cancelled by an administrator"), N_("Try it again to undo the cancellation."))
UNREACHABLE = Cause(
    "unreachable",
    N_("The destination does not answer"),
    N_("Is it switched on, are host and port right, does a firewall let this node through? Then try again."),
)
NO_ADDRESS = Cause(
    "address",
    N_("The destination's host name has no address"),
    N_("Correct destinations[].host, or the name server; restart the node, then try again."),
)
REJECTED = Cause(
    "rejected",
    N_("The destination rejects our association"),
    N_("Its administrator must list our AE title and address. Then try again."),
)
NO_CONTEXT = Cause(
    "context",
    N_("The destination does not accept this kind of object"),
    N_("Rehearse it in the room of destinations, and have its administrator allow what is refused there."),
)
FULL = Cause(
    "full",
    N_("The destination has no room or is too busy (0xA7xx)"),
    N_("Its administrator must make room. Then try again."),
)
MISMATCH = Cause(
    "mismatch",
    N_("The destination says that the object does not fit its class (0xA9xx)"),
    N_("Ask its manufacturer what it misses; the bytes of ours never change. Report it to us too."),
)
NOT_UNDERSTOOD = Cause(
    "understood",
    N_("The destination cannot understand the object (0xCxxx)"),
    N_("Look into its log for the attribute that it minds. Trying again helps only after a change there."),
)
NOT_ALLOWED = Cause(
    "allowed",
    N_("The destination does not allow us to store (0x0122, 0x0124)"),
    N_("Its administrator must allow our AE title to store Secondary Captures and structured reports."),
)
NOT_COMMITTED = Cause(
    "committed",
    N_("The destination took the object and then did not keep it"),
    N_("Look into its log and storage: it refused storage commitment three times."),
)
SILENT = Cause(
    "silent",
    N_("The destination broke off, or did not answer in time"),
    N_("Look at the network and at its load; timeout_seconds may be too short. Then try again."),
)
STATUS = Cause(
    "status",
    N_("The destination refuses the object"),
    N_("The status is in the details; its log says more. Try again after a change there."),
)
OTHER = Cause("other", N_("Another reason"), N_("The details say what happened."))

_PATTERNS: Sequence[tuple[str, Cause]] = (
    (r"cancelled by ", CANCELLED),
    (r"stored file is missing", LOST),
    (r"ended without a result", CRASHED),
    (r"unexpected \w+", UNEXPECTED),
    (r"has no address", NO_ADDRESS),
    (r"rejected the association", REJECTED),
    (r"did not answer, or ended the association before", UNREACHABLE),
    (r"accepted no presentation context", NO_CONTEXT),
    (r"did not commit", NOT_COMMITTED),
    (r"answered 0xA7", FULL),
    (r"answered 0xA9", MISMATCH),
    (r"answered 0xC", NOT_UNDERSTOOD),
    (r"answered 0x012[24]", NOT_ALLOWED),
    (r"answered 0x", STATUS),
    (r"did not answer|ended the association", SILENT),
)


def explain(reason: str) -> Cause:
    """The cause of a failure by the reason that was written down."""
    return next((cause for pattern, cause in _PATTERNS if re.search(pattern, reason)), OTHER)


def grouped(reasons: Sequence[Reason]) -> list[Group]:
    """Failures of one cause, kind and destination together; the largest group first."""
    groups: dict[tuple[str, str, str], Group] = {}
    for found in reasons:
        cause = explain(found.reason)
        key = (cause.key, found.kind, found.destination)
        known = groups.get(key)
        if known is None:
            groups[key] = Group(cause, found.kind, found.destination, found.count, found.latest, (found.reason,))
            continue
        texts = dict.fromkeys([*known.reasons, found.reason])
        groups[key] = replace(
            known, count=known.count + found.count, latest=max(known.latest, found.latest), reasons=tuple(texts)
        )
    return sorted(groups.values(), key=lambda group: (-group.count, group.cause.key, group.kind, group.destination))
