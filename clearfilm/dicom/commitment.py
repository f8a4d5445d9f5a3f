"""The peer's verdict on storage commitment: N-EVENT-REPORT (PS3.4 J.3.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True)
class CommitmentReport:
    """What a peer says about the objects of one request."""

    transaction_uid: str
    committed: tuple[str, ...]  # SOP Instance UIDs
    failed: tuple[str, ...]


def report_handler(keep: Callable[[CommitmentReport], None]) -> Callable[[Any], tuple[int, Dataset | None]]:
    """A handler for pynetdicom's EVT_N_EVENT_REPORT.

    Parameters
    ----------
    keep : callable
        Stores the report; only after it returns the peer is told "success".
    """

    def handle(event: Any) -> tuple[int, Dataset | None]:
        information = event.event_information
        try:
            report = CommitmentReport(
                transaction_uid=str(information.TransactionUID),
                committed=_instances(information, "ReferencedSOPSequence"),
                failed=_instances(information, "FailedSOPSequence"),
            )
        except AttributeError:
            return PROCESSING_FAILURE, None
        keep(report)
        return SUCCESS, None

    return handle


def _instances(information: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(item.ReferencedSOPInstanceUID) for item in information.get(keyword) or ())
