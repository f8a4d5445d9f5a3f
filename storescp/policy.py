"""Who may associate, and for what. Denied by default."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    Verification,
)

from clearfilm.config import Config, Sender
from clearfilm.dicom.codecs import accepted_transfer_syntaxes

logger = logging.getLogger(__name__)

FILM_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
SECONDARY_CAPTURE = SecondaryCaptureImageStorage
_VERIFICATION_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_DENIALS_REMEMBERED = 1024
_DENIAL_SECONDS = 60.0


@dataclass(frozen=True)
class Rejection:
    """Why an association is rejected: result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int
    source: int
    diagnostic: int
    reason: str


CALLED_TITLE_UNKNOWN = Rejection(1, 1, 7, "called AE title not recognised")
CALLING_TITLE_UNKNOWN = Rejection(1, 1, 3, "calling AE title not recognised")
CONGESTION = Rejection(2, 3, 1, "temporary congestion")


class Policy:
    """Decides by the configuration's list of senders.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._title = config.node.ae_title
        self._echo_from_anyone = config.listener.echo_from_anyone
        self._senders = [
            (sender, [ipaddress.ip_network(network, strict=False) for network in sender.addresses])
            for sender in config.senders
        ]

    def sender(self, calling_ae_title: str, address: str) -> Sender | None:
        """The sender that calls with this title from this address; exact titles come before "*"."""
        source = _plain(address)
        matching = [
            sender
            for sender, networks in self._senders
            if sender.ae_title in (calling_ae_title, "*") and any(source in network for network in networks)
        ]
        return min(matching, key=lambda sender: sender.ae_title == "*", default=None)

    def decide(self, called_ae_title: str, calling_ae_title: str, address: str) -> Sender | Rejection | None:
        """A listed sender, a rejection, or None: a stranger who may send C-ECHO."""
        if called_ae_title != self._title:
            return CALLED_TITLE_UNKNOWN
        sender = self.sender(calling_ae_title, address)
        if sender is None and not self._echo_from_anyone:
            return CALLING_TITLE_UNKNOWN
        return sender


def supported_contexts(sender: Sender | None) -> list[PresentationContext]:
    """Presentation contexts for a sender; None: C-ECHO only."""
    contexts = [build_context(Verification, _VERIFICATION_SYNTAXES)]
    if sender is not None:
        syntaxes = list(accepted_transfer_syntaxes())
        classes = [*FILM_CLASSES, SECONDARY_CAPTURE] if sender.secondary_capture else FILM_CLASSES
        contexts += [build_context(sop_class, syntaxes) for sop_class in classes]
    return contexts


class Denials:
    """Reports denials, at most once a minute for each address, so that a flood of them stays readable.

    Parameters
    ----------
    report : callable
        Gets title, address, reason, and how many were passed over since the last report.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, report: Callable[[str, str, str, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def add(self, calling_ae_title: str, address: str, reason: str) -> None:
        """Note a denial."""
        now = self._clock()
        last, passed_over = self._seen.get(address, (now - _DENIAL_SECONDS, 0))
        if now - last < _DENIAL_SECONDS:
            self._seen[address] = (last, passed_over + 1)
            return
        if len(self._seen) >= _DENIALS_REMEMBERED:
            self._seen.clear()
        self._seen[address] = (now, 0)
        self._report(calling_ae_title, address, reason, passed_over)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 peer of an IPv6 socket has a mapped address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed
