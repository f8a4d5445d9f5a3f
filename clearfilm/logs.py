"""Logging: one JSON object a line on standard error. Handlers are made here and nowhere else.

Facts travel as fields: ``logger.info("job finished", extra={"job_id": 7})``. Names and IDs of patients
never do; UIDs and job numbers suffice.
"""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line; control characters are escaped by JSON itself."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=True)


def configure(service: str, level: int = logging.INFO) -> None:
    """Send the log of this process to standard error.

    Parameters
    ----------
    service : str
        Name of the process, in every line.
    level : int
        Lowest level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These write identifiers of data sets, every statement or every request at INFO.
    for name in ("pydicom", "sqlalchemy", "alembic", "apscheduler", "highdicom", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What matters of its messages we log ourselves, with our own fields.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
