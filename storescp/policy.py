"""Who may associate, and for what. Denied by default."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    Verification,
)

from clearfilm.config import Config, Destination, Sender
from clearfilm.dicom.codecs import accepted_transfer_syntaxes

logger = logging.getLogger(__name__)

FILM_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
SECONDARY_CAPTURE = SecondaryCaptureImageStorage
# For counters.
SHORT_NAMES = {
    ComputedRadiographyImageStorage: "CR",
    DigitalXRayImageStorageForPresentation: "DX",
    DigitalXRayImageStorageForProcessing: "DX for processing",
    SecondaryCaptureImageStorage: "SC",
}
_UNCOMPRESSED = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_DENIALS_REMEMBERED = 1024
_DENIAL_SECONDS = 60.0
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
# Transient, so that senders keep their films and call again; many of them take a C-STORE failure for final.
PAUSED = Rejection(2, 3, 1, "receiving is paused")


@dataclass(frozen=True)
class Admission:
    """What a peer that may associate is to this node; neither: a stranger who may send C-ECHO."""

    sender: Sender | None = None
    destination: Destination | None = None  # may report on storage commitment


class Policy:
    """Decides by the configuration's lists of senders and destinations.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._title = config.node.ae_title
        self._echo_from_anyone = config.listener.echo_from_anyone
        self._configured = self._senders = _with_networks(config.senders)
        self._destinations = [(entry, _addresses(entry.host)) for entry in config.destinations]

    def trust(self, senders: Sequence[Sender]) -> None:
        """Take these senders beside the configuration's, instead of those of the last call."""
        self._senders = [*self._configured, *_with_networks(senders)]

    def sender(self, calling_ae_title: str, address: str) -> Sender | None:
        """The sender that calls with this title from this address; exact titles come before "*"."""
        source = _plain(address)
        matching = [
            sender
            for sender, networks in self._senders
            if sender.ae_title in (calling_ae_title, "*") and any(source in network for network in networks)
        ]
        return min(matching, key=lambda sender: sender.ae_title == "*", default=None)

    def destination(self, calling_ae_title: str, address: str) -> Destination | None:
        """The destination that calls with this title from its own address."""
        source = str(_plain(address))
        return next(
            (
                entry
                for entry, addresses in self._destinations
                if entry.ae_title == calling_ae_title and source in addresses
            ),
            None,
        )

    def decide(self, called_ae_title: str, calling_ae_title: str, address: str) -> Admission | Rejection:
        """What the peer may do, or why it may not even associate."""
        if called_ae_title != self._title:
            return CALLED_TITLE_UNKNOWN
        admission = Admission(self.sender(calling_ae_title, address), self.destination(calling_ae_title, address))
        if admission == Admission() and not self._echo_from_anyone:
            return CALLING_TITLE_UNKNOWN
        return admission

    def explain(self, rejection: Rejection, called_ae_title: str, calling_ae_title: str, address: str) -> str:
        """The reason in words that tell what differs from what is configured."""
        if rejection is CALLED_TITLE_UNKNOWN:
            return f"it calls {called_ae_title!r}, this node is {self._title!r}"
        if rejection is not CALLING_TITLE_UNKNOWN:
            return rejection.reason
        source = _plain(address)
        if any(sender.ae_title == calling_ae_title for sender, _ in self._senders):
            return "its title is listed with another address"
        if any(source in network for _, networks in self._senders for network in networks):
            return "its address is listed with another title"
        return "neither its title nor its address is listed"


def supported_contexts(admission: Admission) -> list[PresentationContext]:
    """Presentation contexts for a peer; a stranger gets C-ECHO only."""
    contexts = [build_context(Verification, _UNCOMPRESSED)]
    if admission.sender is not None:
        syntaxes = list(accepted_transfer_syntaxes())
        classes = [*FILM_CLASSES, SECONDARY_CAPTURE] if admission.sender.secondary_capture else FILM_CLASSES
        contexts += [build_context(sop_class, syntaxes) for sop_class in classes]
    if admission.destination is not None:
        commitment = build_context(StorageCommitmentPushModel, _UNCOMPRESSED)
        # The peer is the SCP here although it calls: role selection is granted (PS3.7 D.3.3.4).
        commitment.scu_role = commitment.scp_role = True
        contexts.append(commitment)
    return contexts


def _with_networks(senders: Sequence[Sender]) -> list[tuple[Sender, list[_Network]]]:
    return [
        (sender, [ipaddress.ip_network(network, strict=False) for network in sender.addresses]) for sender in senders
    ]


def _addresses(host: str) -> frozenset[str]:
    """Addresses of a destination; none if its name cannot be resolved now: its reports are asked for again."""
    try:
        return frozenset(str(_plain(str(entry[4][0]))) for entry in socket.getaddrinfo(host, None))
    except OSError:
        logger.warning("address of a destination is unknown", extra={"host": host})
        return frozenset()


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
