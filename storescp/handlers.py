"""Association requests, C-ECHO and C-STORE as this node answers them."""

from __future__ import annotations

import logging
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from clearfilm import metrics
from clearfilm.config import Config
from clearfilm.crashpoints import crash_point
from clearfilm.dicom import statuses
from clearfilm.dicom.header import FilmHeader, ScannedObject, is_own_result
from clearfilm.dicom.uids import is_valid_uid
from clearfilm.errors import RefusedObject, StorageError
from db import associations, audit
from db.associations import Call
from db.intake import Outcome, ReceivedFilm
from db.models import Instance, InstanceState, Result
from db.session import Database
from storescp.commits import Commits, CommitUnknown
from storescp.dimse import ProtocolViolation, Request
from storescp.hardening import AcceptedAssociation
from storescp.policy import (
    CONGESTION,
    FILM_CLASSES,
    PAUSED,
    SECONDARY_CAPTURE,
    SHORT_NAMES,
    Admission,
    Denials,
    Policy,
    Rejection,
    supported_contexts,
)
from storescp.recovery import LOST
from storescp.reports import ReportRequest
from storescp.steering import Steering
from storescp.storage import DiskGuard, IncomingFilm, Origin

logger = logging.getLogger(__name__)

OWN_RESULT = "own result came back: not stored"
DUPLICATE = "film received again: nothing stored"
_OUTCOMES = {OWN_RESULT: "own_result", DUPLICATE: "duplicate"}


class Node:
    """The listener's answers; one for all its associations.

    Parameters
    ----------
    config : Config
    database : Database
    commits : Commits
    """

    def __init__(self, config: Config, database: Database, commits: Commits) -> None:
        self._data_folder: Path = config.data_folder
        self._maximum_bytes = config.listener.maximum_object_megabytes * 1_000_000
        self._database = database
        self._commits = commits
        self._guard = DiskGuard(config.data_folder, config.disk)
        self._policy = Policy(config)
        self.steering = Steering(database, self._policy)
        self._denials = Denials(self._report_denial)

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """For pynetdicom."""
        return [(evt.EVT_REQUESTED, self.on_requested)]

    def on_requested(self, event: evt.Event) -> None:
        """Accept or reject an association, and choose its presentation contexts."""
        association = cast(AcceptedAssociation, event.assoc)
        request = association.requestor.primitive
        assert request is not None
        called, calling = request.called_ae_title.strip(), request.calling_ae_title.strip()
        decision = self._policy.decide(called, calling, association.peer)
        denied = isinstance(decision, Rejection)
        reason = ""
        if isinstance(decision, Rejection):
            self._denials.add(calling, association.peer, decision.reason)
            reason = self._policy.explain(decision, called, calling, association.peer)
        elif self.steering.receive_paused and _offers_films(association, decision):
            decision = PAUSED
        elif self._guard.is_critical:
            logger.error("association rejected: the disk is nearly full", extra={"peer": association.peer})
            decision, reason = CONGESTION, "the disk is nearly full"
        metrics.ASSOCIATIONS.labels(_outcome(decision)).inc()
        if isinstance(decision, Rejection):
            outcome = associations.Outcome.DENIED if denied else associations.Outcome.DEFERRED
            self.steering.note(_call(outcome, called, calling, association.peer, None, reason or decision.reason))
            association.acse.send_reject(decision.result, decision.source, decision.diagnostic)
            association.kill()
            return
        association.admission = decision
        association.acceptor.supported_contexts = supported_contexts(decision)
        peer = decision.sender or decision.destination
        association.call = _call(
            associations.Outcome.ACCEPTED, called, calling, association.peer, peer.name if peer else None, ""
        )

    def ended(self, association: AcceptedAssociation) -> None:
        """Log an association that was accepted."""
        if association.call is not None:
            self.steering.note(association.call)

    def open_store(self, association: AcceptedAssociation, request: Request, context_id: int) -> StoreRequest:
        """Begin a C-STORE; a refusal is kept until the data set has passed, as the protocol wants."""
        context = association._accepted_cx[context_id]
        sender = association.admission.sender
        if sender is None or context.abstract_syntax == StorageCommitmentPushModel:
            raise ProtocolViolation("a C-STORE comes on a context that is not for storage")
        origin = Origin(
            sender=sender.name,
            calling_ae_title=(association.requestor.ae_title or "").strip(),
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=str(context.transfer_syntax[0]),
        )
        store = StoreRequest(self, self._maximum_bytes, association.peer, origin, association.call)
        try:
            if self.steering.receive_paused:
                raise RefusedObject(statuses.OUT_OF_RESOURCES, "receiving is paused; send it again later")
            if origin.sop_class_uid != context.abstract_syntax:
                raise RefusedObject(statuses.SOP_CLASS_NOT_SUPPORTED, "SOP class differs from the presentation context")
            if not is_valid_uid(origin.sop_instance_uid):
                raise RefusedObject(statuses.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
            self._guard.require_space()
            store.film = IncomingFilm(self._data_folder, origin)
        except Exception as error:  # noqa: BLE001 - the edge around one request
            store.refusal = error
        return store

    def open_report(self, association: AcceptedAssociation, context_id: int) -> ReportRequest:
        """Begin an N-EVENT-REPORT of a destination."""
        context = association._accepted_cx[context_id]
        destination = association.admission.destination
        if destination is None or context.abstract_syntax != StorageCommitmentPushModel:
            raise ProtocolViolation("an N-EVENT-REPORT comes on a context that is not for storage commitment")
        return ReportRequest(self._database, destination.name, str(context.transfer_syntax[0]))

    def finish_store(self, store: StoreRequest) -> tuple[int, str]:
        """Answer a C-STORE whose data set has come completely: status and Error Comment."""
        facts: dict[str, Any] = {"peer": store.peer, "sender": store.origin.sender, "bytes": store.size}
        try:
            outcome = self._keep(store)
        except Exception as error:  # noqa: BLE001 - the edge around one request
            _count(store.origin, "refused")
            status, reason = self._refuse(error, facts)
            if store.call is not None:
                store.call.refused, store.call.refusal = store.call.refused + 1, reason
            return status, reason
        finally:
            store.discard()
        _count(store.origin, _OUTCOMES.get(outcome, "stored"))
        facts["sop_instance_uid"] = store.origin.sop_instance_uid
        facts["milliseconds"] = round((time.monotonic() - store.began_at) * 1000)
        logger.info(outcome, extra=facts)
        if store.call is not None:
            store.call.stored += 1
        crash_point("committed-before-answer")
        return statuses.SUCCESS, ""

    def _keep(self, store: StoreRequest) -> str:
        """Check, make durable, record; what became of the film."""
        if store.refusal is not None:
            raise store.refusal
        film = store.film
        assert film is not None, "a film that is not refused"
        scanned, attributes = film.examine()
        _check_identity(film.origin, scanned)
        if self._is_own_result(scanned, attributes):
            return OWN_RESULT
        received = film.publish(scanned, attributes)
        try:
            outcome = self._commits.record(received)
        except CommitUnknown:
            store.film = None  # the rows may name this file; the next start makes them agree
            film.keep()
            raise
        if outcome is Outcome.DUPLICATE:
            self._replace_if_lost(film, received)
            return DUPLICATE
        store.film = None
        film.keep()
        return "film stored" if outcome is Outcome.NEW else "film stored beside another of the same UID"

    def _replace_if_lost(self, film: IncomingFilm, received: ReceivedFilm) -> None:
        """The sender will forget these bytes: the file that is told to hold them must exist."""
        statement = select(Instance).where(
            Instance.sop_instance_uid == received.sop_instance_uid, Instance.digest == received.digest
        )
        with self._database.read() as session:
            instance = session.scalars(statement).one_or_none()
        if instance is None:
            return
        is_lost = not (self._data_folder / instance.path).exists()
        if is_lost:
            film.move(self._data_folder / instance.path)
            logger.error("lost file of a film restored by its sender", extra={"path": instance.path})
        if instance.state is InstanceState.FAILED and (is_lost or instance.reason == LOST):
            self._commits.revive(instance.id)

    def _is_own_result(self, scanned: ScannedObject, attributes: FilmHeader) -> bool:
        """By its text also those of other nodes, and those whose rows retention has deleted."""
        if scanned.sop_class_uid != SECONDARY_CAPTURE:
            return False
        if is_own_result(attributes):
            return True
        with self._database.read() as session:
            statement = select(Result.id).where(Result.sop_instance_uid == scanned.sop_instance_uid)
            return session.scalars(statement).first() is not None

    def _refuse(self, error: Exception, facts: dict[str, Any]) -> tuple[int, str]:
        """The answer to a request that failed, whatever the reason."""
        if isinstance(error, RefusedObject):
            status, reason = error.status, error.reason
        elif isinstance(error, StorageError):
            if isinstance(error.__cause__, OSError):
                self._guard.report(error.__cause__)
            status, reason = statuses.OUT_OF_RESOURCES, str(error)
        elif isinstance(error, SQLAlchemyError):
            status, reason = statuses.OUT_OF_RESOURCES, "the database is locked or away"
        else:
            incident = secrets.token_hex(4)
            status, reason = statuses.PROCESSING_FAILURE, f"internal error, incident {incident}"
            logger.error("internal error", exc_info=error, extra={"incident": incident})
        logger.warning("film refused", extra=facts | {"status": f"{status:#06x}", "reason": reason})
        return status, reason

    def _report_denial(self, calling_ae_title: str, address: str, reason: str, passed_over: int) -> None:
        facts = {"calling_ae_title": calling_ae_title, "peer": address, "reason": reason}
        logger.warning("association denied", extra=facts | {"denials_not_logged": passed_over})
        try:
            with self._database.begin() as session:
                audit.record(
                    session,
                    "association denied",
                    actor=f"{calling_ae_title} at {address}",
                    now=datetime.now(UTC),
                    reason=reason,
                    denials_not_recorded=passed_over,
                )
        except SQLAlchemyError as error:
            logger.error("denial not audited", extra={"cause": type(error).__name__})


class StoreRequest:
    """A C-STORE request whose data set is arriving.

    Parameters
    ----------
    node : Node
    maximum_bytes : int
        A longer data set ends the association.
    peer : str
        Address.
    origin : Origin
    call : Call or None
        What the log will tell of its association.
    """

    def __init__(self, node: Node, maximum_bytes: int, peer: str, origin: Origin, call: Call | None) -> None:
        self.began_at = time.monotonic()
        self.peer = peer
        self.origin = origin
        self.call = call
        self.size = 0
        self.film: IncomingFilm | None = None
        self.refusal: Exception | None = None
        self._node = node
        self._maximum_bytes = maximum_bytes

    def append(self, fragment: memoryview) -> None:
        """Take the next bytes; those of a refused film only pass by."""
        self.size += len(fragment)
        if self.size > self._maximum_bytes:
            raise ProtocolViolation(f"a data set of more than {self._maximum_bytes} bytes")
        if self.film is not None:
            try:
                self.film.append(fragment)
            except StorageError as error:
                self.refusal = error
                self.discard()

    def finish(self) -> tuple[int, str]:
        """The data set is complete: status and Error Comment."""
        return self._node.finish_store(self)

    def discard(self) -> None:
        """Leave nothing behind of a film that is not to be kept."""
        if self.film is not None:
            self.film.discard()
            self.film = None


def _outcome(decision: Admission | Rejection) -> str:
    if decision in (CONGESTION, PAUSED):
        return "congested"
    return "denied" if isinstance(decision, Rejection) else "accepted"


def _count(origin: Origin, outcome: str) -> None:
    metrics.RECEIVED.labels(SHORT_NAMES.get(origin.sop_class_uid, "other"), outcome).inc()


def _offers_films(association: AcceptedAssociation, admission: Admission) -> bool:
    """Whether the peer wants to send films; C-ECHO and storage commitment reports are no reception."""
    contexts = association.requestor.requested_contexts
    return admission.sender is not None and any(
        context.abstract_syntax in (*FILM_CLASSES, SECONDARY_CAPTURE) for context in contexts
    )


def _call(
    outcome: associations.Outcome, called: str, calling: str, address: str, peer: str | None, reason: str
) -> Call:
    return Call(outcome, calling, called, address, peer, reason, at=datetime.now(UTC))


def _check_identity(origin: Origin, scanned: ScannedObject) -> None:
    if scanned.sop_class_uid != origin.sop_class_uid:
        raise RefusedObject(statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP class of data set and command differ")
    if scanned.sop_instance_uid != origin.sop_instance_uid:
        raise RefusedObject(
            statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID of data set and command differ"
        )
