"""Storage commitment reports that a destination sends on an association of its own (PS3.4 J.3.3)."""

from __future__ import annotations

import io
import logging
from datetime import UTC, datetime

from pydicom.uid import UID
from pynetdicom.dsutils import decode
from sqlalchemy.exc import SQLAlchemyError

from clearfilm.dicom import statuses
from clearfilm.dicom.commitment import read_report
from clearfilm.errors import RefusedObject
from db import deliveries
from db.session import Database
from storescp.dimse import ProtocolViolation

logger = logging.getLogger(__name__)

# A report names what one request named: some hundred objects of about 150 bytes.
MAXIMUM_REPORT = 1_000_000


class ReportRequest:
    """An N-EVENT-REPORT request whose Event Information is arriving.

    Parameters
    ----------
    database : Database
    destination : str
        Its name in the configuration, for the log.
    transfer_syntax_uid : str
        Of the presentation context.
    """

    def __init__(self, database: Database, destination: str, transfer_syntax_uid: str) -> None:
        self._database = database
        self._destination = destination
        self._syntax = UID(transfer_syntax_uid)
        self._content = bytearray()

    def append(self, fragment: memoryview) -> None:
        """Take the next bytes."""
        self._content += fragment
        if len(self._content) > MAXIMUM_REPORT:
            raise ProtocolViolation(f"a storage commitment report of more than {MAXIMUM_REPORT} bytes")

    def finish(self) -> tuple[int, str]:
        """Write the verdict down: status and Error Comment of the answer."""
        try:
            information = decode(io.BytesIO(self._content), self._syntax.is_implicit_VR, self._syntax.is_little_endian)
            report = read_report(information)
            with self._database.begin() as session:
                named = deliveries.record_commitment(session, report, now=datetime.now(UTC))
        except RefusedObject as error:
            status, reason = error.status, error.reason
        except SQLAlchemyError:
            status, reason = statuses.OUT_OF_RESOURCES, "the database is locked or away"
        except Exception as error:  # noqa: BLE001 - the edge around one request
            logger.error("internal error", extra={"cause": type(error).__name__})
            status, reason = statuses.PROCESSING_FAILURE, "the report cannot be read"
        else:
            facts = {"destination": self._destination, "deliveries": named, "failed": len(report.failed)}
            logger.info("storage commitment reported", extra=facts)
            return statuses.SUCCESS, ""
        logger.warning("storage commitment report refused", extra={"destination": self._destination, "reason": reason})
        return status, reason

    def discard(self) -> None:
        """Nothing was kept."""
