"""A small PACS for the demo and for tests: stores what it gets below a folder, commits to it, keeps a journal."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from clearfilm.dicom.uids import is_valid_uid
from clearfilm.errors import StartupError

STORED = (
    SecondaryCaptureImageStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)
JOURNAL = "journal.jsonl"


class TestPacs:
    """Stores results as ``folder/<study>/<instance>.dcm``.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is missing.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._reports: dict[Any, tuple[Dataset, int]] = {}

    def objects(self, study_instance_uid: str) -> list[Path]:
        """Files of one study."""
        return sorted((self._folder / study_instance_uid).glob("*.dcm"))

    def store(self, event: Any) -> int:
        """C-STORE: keep the bytes."""
        request = event.request
        header = event.dataset
        uid, study = str(request.AffectedSOPInstanceUID), str(header.get("StudyInstanceUID", ""))
        if not is_valid_uid(uid) or not is_valid_uid(study):
            return 0xA900
        path = self._folder / study / f"{uid}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = event.encoded_dataset()
        path.write_bytes(content)
        with self._lock, (self._folder / JOURNAL).open("a", encoding="utf-8") as journal:
            entry = {
                "study": study,
                "instance": uid,
                "description": str(header.get("SeriesDescription", "")),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            journal.write(json.dumps(entry) + "\n")
        return 0x0000

    def commit(self, event: Any) -> tuple[int, None]:
        """N-ACTION: report on the same association what is stored (PS3.4 J.3.3)."""
        request = event.action_information
        names = [(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in request.ReferencedSOPSequence]
        present = {path.stem for path in self._folder.glob("*/*.dcm")}
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        report.ReferencedSOPSequence = [_reference(*name) for name in names if name[1] in present]
        missing = [_reference(*name) for name in names if name[1] not in present]
        for item in missing:
            item.FailureReason = 0x0112
        if missing:
            report.FailedSOPSequence = missing
        with self._lock:
            self._reports[event.assoc] = (report, 2 if missing else 1)
        return 0x0000, None

    def answered(self, event: Any) -> None:
        """The report follows the answer to the request: a requestor waits for one message at a time."""
        if not isinstance(event.message, N_ACTION_RSP):
            return
        with self._lock:
            report, event_type = self._reports.pop(event.assoc)
        threading.Thread(target=_report, args=(event.assoc, report, event_type)).start()


@contextmanager
def running(folder: Path, ae_title: str, address: str, port: int) -> Iterator[tuple[TestPacs, int]]:
    """Serve in the background.

    Yields
    ------
    TestPacs and int
        The PACS, and the port that it listens on.

    Raises
    ------
    StartupError
        If the port is in use.
    """
    pacs = TestPacs(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ae = AE(ae_title=ae_title)
    ae.maximum_pdu_size = 131_072
    for uid in (*STORED, Verification):
        ae.add_supported_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    ae.add_supported_context(StorageCommitmentPushModel)
    handlers = [
        (evt.EVT_C_STORE, pacs.store),
        (evt.EVT_N_ACTION, pacs.commit),
        (evt.EVT_DIMSE_SENT, pacs.answered),
    ]
    try:
        server = ae.start_server((address, port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    except OSError as error:
        raise StartupError(f"the test PACS cannot listen on {address}:{port}: {error.strerror}") from error
    assert server is not None
    try:
        yield pacs, int(server.server_address[1])
    finally:
        server.shutdown()


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    return reference


def _report(association: Any, report: Dataset, event_type: int) -> None:
    if association.is_established:
        association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
