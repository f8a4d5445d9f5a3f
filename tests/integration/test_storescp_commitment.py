"""Storage commitment reports on an association that the destination opens (PS3.4 J.3.3)."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import select

from clearfilm.config import Config, Destination
from clearfilm.triage import Decision
from db.models import Delivery, DeliveryState, Job, JobKind, Result, ResultKind, Study
from db.session import Database
from storescp.main import RunningListener
from tests.integration.listening import configuration, listening

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
TRANSACTION = "2.25.77"


def sent_results(config: Config) -> list[str]:
    """Two results that the destination has stored; their SOP Instance UIDs."""
    database = Database(config.database_url)
    uids = [generate_uid(), generate_uid()]
    with database.begin() as session:
        now = database.now(session)
        study = Study(study_instance_uid="1.2", revision=1, first_received_at=now, last_received_at=now)
        session.add(study)
        session.flush()
        for position, uid in enumerate(uids):
            result = Result(
                study_id=study.id,
                revision=1,
                kind=ResultKind.REPORT,
                sop_class_uid="1.2",
                sop_instance_uid=uid,
                series_instance_uid="1.2.3",
                transfer_syntax_uid="1.2",
                position=position,
                path=f"results/{position}",
                digest="0" * 64,
                decision=Decision.NOT_ANALYSED,
                created_at=now,
            )
            session.add(result)
            session.flush()
            session.add(
                Delivery(
                    result_id=result.id,
                    destination="pacs",
                    state=DeliveryState.SENT,
                    commitment_uid=TRANSACTION,
                    created_at=now,
                )
            )
    database.close()
    return uids


def states(config: Config) -> list[DeliveryState]:
    database = Database(config.database_url)
    with database.read() as session:
        found = list(session.scalars(select(Delivery.state).order_by(Delivery.id)))
    database.close()
    return found


def report(listener: RunningListener, information: Dataset, title: str = "PACS") -> int | None:
    """Send an N-EVENT-REPORT as a PACS does: it calls, and plays the SCP."""
    ae = AE(title)
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = ae.associate("127.0.0.1", listener.port, ae_title="CLEARFILM", ext_neg=[role])
    if not association.is_established:
        return None
    answer, _ = association.send_n_event_report(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    status: Any = getattr(answer, "Status", None)
    return status


def names(uids: list[str]) -> list[Dataset]:
    items = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", uid
        items.append(item)
    return items


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(tmp_path, destinations=(PACS,))


def test_what_the_destination_commits_to_is_committed(config: Config) -> None:
    with listening(config) as listener:
        information = Dataset()
        information.TransactionUID = TRANSACTION
        information.ReferencedSOPSequence = names(sent_results(config))
        assert report(listener, information) == 0x0000
        assert states(config) == [DeliveryState.COMMITTED] * 2


def test_what_it_has_lost_is_sent_again(config: Config) -> None:
    with listening(config) as listener:
        kept, lost = sent_results(config)
        information = Dataset()
        information.TransactionUID = TRANSACTION
        information.ReferencedSOPSequence = names([kept])
        information.FailedSOPSequence = names([lost])
        assert report(listener, information) == 0x0000
        assert states(config) == [DeliveryState.COMMITTED, DeliveryState.WAITING]
    database = Database(config.database_url)
    with database.read() as session:
        assert session.scalars(select(Job.kind)).all() == [JobKind.DELIVER]
    database.close()


def test_report_without_a_transaction_is_refused(config: Config) -> None:
    with listening(config) as listener:
        information = Dataset()
        information.ReferencedSOPSequence = names(sent_results(config))
        assert report(listener, information) == 0x0110
        assert states(config) == [DeliveryState.SENT] * 2


def test_only_a_configured_destination_may_report(config: Config) -> None:
    with listening(config) as listener:
        assert report(listener, Dataset(), "STRANGER") is None
        assert report(listener, Dataset(), "MODALITY") is None
