"""The peer's verdict on storage commitment: N-EVENT-REPORT (PS3.4 J.3.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from clearfilm.dicom import statuses
from clearfilm.errors import RefusedObject


@dataclass(frozen=True)
class CommitmentReport:
    """What a peer says about the objects of one request."""

    transaction_uid: str
    committed: tuple[str, ...]  # SOP Instance UIDs
    failed: tuple[str, ...]


def read_report(information: Dataset) -> CommitmentReport:
    """The Event Information of a report.

    Raises
    ------
    RefusedObject
        If it names no transaction, or cannot be read.
    """
    try:
        return CommitmentReport(
            transaction_uid=str(information.TransactionUID),
            committed=_instances(information, "ReferencedSOPSequence"),
            failed=_instances(information, "FailedSOPSequence"),
        )
    except Exception as error:
        # pydicom decodes at access, and raises whatever the bytes lead it to.
        raise RefusedObject(statuses.PROCESSING_FAILURE, "the report cannot be read") from error


def report_handler(keep: Callable[[CommitmentReport], None]) -> Callable[[Any], tuple[int, Dataset | None]]:
    """A handler for pynetdicom's EVT_N_EVENT_REPORT.

    Parameters
    ----------
    keep : callable
        Stores the report; only after it returns the peer is told "success".
    """

    def handle(event: Any) -> tuple[int, Dataset | None]:
        try:
            keep(read_report(event.event_information))
        except RefusedObject as error:
            return error.status, None
        return statuses.SUCCESS, None

    return handle


def _instances(information: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(item.ReferencedSOPInstanceUID) for item in information.get(keyword) or ())
