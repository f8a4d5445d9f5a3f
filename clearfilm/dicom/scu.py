"""Service class user: associations that we open, for sending, echo and storage commitment."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from clearfilm.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from clearfilm.errors import PeerBusy, PeerRefused, PeerUnreachable

logger = logging.getLogger(__name__)

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
MAXIMUM_PDU = 131_072
SUCCESS = 0x0000


@dataclass(frozen=True)
class Peer:
    """An application entity that we call."""

    ae_title: str
    host: str
    port: int
    connect_timeout_seconds: float = 5
    timeout_seconds: float = 60

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def storage_contexts(sop_class_uid: str, transfer_syntaxes: Sequence[str] = UNCOMPRESSED) -> list[PresentationContext]:
    """Presentation contexts to propose for sending objects of one SOP class.

    One for each transfer syntax: of several in one context the peer chooses, and it may choose another
    than the one that the stored bytes have.
    """
    return [build_context(sop_class_uid, [syntax]) for syntax in transfer_syntaxes]


@contextmanager
def associate(
    calling_ae_title: str,
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    commitment: bool = False,
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """Open an association, and release it at the end.

    Parameters
    ----------
    calling_ae_title : str
        Our title.
    peer : Peer
        Whom to call.
    contexts : sequence of PresentationContext
        What to propose; at most 126, Verification is added.
    commitment : bool
        Propose the Storage Commitment Push Model too (PS3.4 J).
    handlers : sequence
        pynetdicom event handlers.

    Yields
    ------
    pynetdicom.Association
        Established, with at least one accepted context.

    Raises
    ------
    PeerUnreachable
        If the peer does not answer, or rejects us.
    """
    association = _request(calling_ae_title, peer, contexts, commitment=commitment, handlers=handlers)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        else:
            association.abort()


def _request(
    calling_ae_title: str,
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    commitment: bool,
    handlers: Sequence[Any],
) -> Association:
    # Stored bytes go out as they are, read from the file piece by piece.
    pynetdicom_config.STORE_SEND_CHUNKED_DATASET = True
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    ae = AE(ae_title=calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.connection_timeout = peer.connect_timeout_seconds
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = peer.timeout_seconds
    proposed = [*contexts, build_context(Verification, list(UNCOMPRESSED))]
    if commitment:
        proposed.append(build_context(StorageCommitmentPushModel, list(UNCOMPRESSED)))
    try:
        association = ae.associate(
            peer.host, peer.port, contexts=proposed, ae_title=peer.ae_title, evt_handlers=list(handlers)
        )
    except (OSError, UnicodeError) as error:
        raise PeerUnreachable(f"{peer} has no address: {getattr(error, 'strerror', error)}") from error
    if association.is_established:
        return association
    if association.is_rejected:
        # Even a permanent rejection (PS3.8 9.3.4) ends when somebody lists us at the peer.
        reason = getattr(association.acceptor.primitive, "reason_str", "no reason given")
        raise PeerUnreachable(f"{peer} rejected the association: {reason}")
    raise PeerUnreachable(f"{peer} did not answer, or ended the association before it was established")


def accepted(association: Association) -> dict[str, list[str]]:
    """SOP classes that the peer accepted, each with its transfer syntaxes."""
    found: dict[str, list[str]] = {}
    for context in association.accepted_contexts:
        found.setdefault(str(context.abstract_syntax), []).append(str(context.transfer_syntax[0]))
    return found


def echo(calling_ae_title: str, peer: Peer) -> None:
    """C-ECHO (PS3.4 A). Raises a DeliveryError if it fails."""
    with associate(calling_ae_title, peer, []) as association:
        status = association.send_c_echo()
    if getattr(status, "Status", None) != SUCCESS:
        raise PeerBusy(f"{peer} did not answer C-ECHO")


def store(association: Association, peer: Peer, path: Path) -> int:
    """C-STORE one file: its bytes as they are, or converted where the peer takes Implicit VR only.

    Parameters
    ----------
    association : pynetdicom.Association
        Established.
    peer : Peer
        For messages.
    path : pathlib.Path
        A DICOM file (PS3.10).

    Returns
    -------
    int
        0x0000, or a warning 0xBxxx or 0x0107/0x0116: stored.

    Raises
    ------
    PeerBusy
        If the answer was lost, or says "not now" (0xA7xx).
    PeerRefused
        If the peer will not take it, or accepted no context for it.
    """
    try:
        answer = association.send_c_store(_sendable(association, path))
    except (ValueError, AttributeError) as error:
        raise PeerRefused(f"{peer} accepted no presentation context for this object") from error
    except RuntimeError as error:
        raise PeerBusy(f"{peer} ended the association") from error
    status = getattr(answer, "Status", None)
    if status is None:
        raise PeerBusy(f"{peer} did not answer; whether it stored the object is unknown")
    # PS3.4 B.2.3, PS3.7 C.4
    if status == SUCCESS or 0xB000 <= status <= 0xBFFF or status in (0x0107, 0x0116):
        return int(status)
    text = f"{peer} answered 0x{status:04X}"
    if 0xA700 <= status <= 0xA7FF:
        raise PeerBusy(text, int(status))
    raise PeerRefused(text, int(status))


def _sendable(association: Association, path: Path) -> Path | Dataset:
    """The file itself, if its transfer syntax was accepted; its data set if only another one was."""
    meta = pydicom.filereader.read_file_meta_info(path)
    syntaxes = accepted(association).get(str(meta.MediaStorageSOPClassUID), [])
    if meta.TransferSyntaxUID == ExplicitVRLittleEndian and syntaxes == [ImplicitVRLittleEndian]:
        return pydicom.dcmread(path)
    return path


def offers_commitment(association: Association) -> bool:
    """Whether the peer accepted the Storage Commitment Push Model on this association."""
    return str(StorageCommitmentPushModel) in accepted(association)


def request_commitment(association: Association, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> None:
    """Ask the peer to take responsibility for stored objects: N-ACTION, type 1 (PS3.4 J.3.2).

    A refusal changes nothing: the objects are stored, and the request is repeated later.

    Parameters
    ----------
    association : pynetdicom.Association
        Established, with the Storage Commitment Push Model accepted.
    transaction_uid : str
        Names this request; the peer's N-EVENT-REPORT repeats it.
    objects : sequence of (str, str)
        SOP Class UID and SOP Instance UID of each.
    """
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(*names) for names in objects]
    try:
        answer, _ = association.send_n_action(
            request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        raise PeerBusy("the association ended before storage commitment was requested") from error
    status = getattr(answer, "Status", None)
    if status is None:
        raise PeerBusy("the association ended before storage commitment was answered")
    if status != SUCCESS:
        logger.warning("storage commitment request not accepted", extra={"status": status})


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    return reference
