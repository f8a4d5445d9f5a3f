"""Would a destination take our results? Asked on an association of its own, nothing is sent."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)

from clearfilm.config import Destination
from clearfilm.dicom import scu
from clearfilm.errors import PeerUnreachable

# The report goes out in the first of these that the destination accepts: the same content in each.
REPORT_PREFERENCE: Final = tuple(map(str, (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)))
SECONDARY_CAPTURE: Final = str(SecondaryCaptureImageStorage)
RESULT_CLASSES: Final = (SECONDARY_CAPTURE, *REPORT_PREFERENCE)
NAMES: Final = dict(
    zip(
        RESULT_CLASSES,
        ("Secondary Capture", "Comprehensive 3D SR", "Comprehensive SR", "Enhanced SR"),
        strict=True,
    )
)
# Longest wait for an answer: a person waits for the outcome.
ANSWER_SECONDS: Final = 10


@dataclass(frozen=True)
class Context:
    """What became of a SOP class that was proposed."""

    name: str
    uid: str
    transfer_syntaxes: tuple[str, ...]  # accepted ones; none: refused


@dataclass(frozen=True)
class Rehearsal:
    """A destination's answer."""

    contexts: tuple[Context, ...]
    commitment: bool
    seconds: float

    @property
    def capture(self) -> bool:
        """Whether it takes Secondary Captures."""
        return any(context.transfer_syntaxes for context in self.contexts if context.uid == SECONDARY_CAPTURE)

    @property
    def report(self) -> str | None:
        """Name of the SR class in which it would get the report; None: in none."""
        taken = {context.uid for context in self.contexts if context.transfer_syntaxes}
        return next((NAMES[uid] for uid in REPORT_PREFERENCE if uid in taken), None)

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def echo(calling_ae_title: str, destination: Destination) -> float:
    """C-ECHO; seconds until it was answered. Raises PeerUnreachable, PeerBusy."""
    began = time.monotonic()
    scu.echo(calling_ae_title, _peer(destination))
    return time.monotonic() - began


def rehearse(calling_ae_title: str, destination: Destination) -> Rehearsal:
    """Propose everything that results need, and C-ECHO.

    Raises
    ------
    PeerUnreachable
        If the destination does not answer, or rejects us.
    """
    began = time.monotonic()
    peer = _peer(destination)
    proposed = [context for uid in RESULT_CLASSES for context in scu.storage_contexts(uid)]
    with scu.associate(calling_ae_title, peer, proposed, commitment=True) as association:
        taken = scu.accepted(association)
        try:
            association.send_c_echo()
        except (RuntimeError, ValueError) as error:
            raise PeerUnreachable(f"{peer} accepted the association, but does not answer C-ECHO") from error
        commitment = scu.offers_commitment(association)
    contexts = tuple(Context(NAMES[uid], uid, tuple(taken.get(uid, ()))) for uid in RESULT_CLASSES)
    return Rehearsal(contexts, commitment, time.monotonic() - began)


def _peer(destination: Destination) -> scu.Peer:
    return scu.Peer(
        destination.ae_title,
        destination.host,
        destination.port,
        destination.connect_timeout_seconds,
        min(destination.timeout_seconds, ANSWER_SECONDS),
    )
