"""A report's text: its two parts, its status and its time, checked."""

import re
from datetime import UTC, datetime

from clearfilm.dicom.uids import is_valid_uid
from clearfilm.errors import RefusedReport
from db.models import ReportSource, ReportStatus
from db.reports import ReceivedReport

MAXIMUM_TEXT = 100_000
_MAXIMUM_KEY = 64
_HEADING = re.compile(
    r"(?:^|[\n.。;；])[ \t]*(?:"
    r"(?P<findings>findings|description|检查所见|影像所见|影像表现|放射学表现|所见|描述)"
    r"|(?P<impression>impression|conclusion|opinion|诊断意见|诊断印象|影像诊断|放射学诊断|检查结论|印象|诊断|结论|意见)"
    r")[ \t]*[:：]",
    re.IGNORECASE,
)
_STATUSES = {
    "": ReportStatus.FINAL,
    "f": ReportStatus.FINAL,
    "final": ReportStatus.FINAL,
    "c": ReportStatus.FINAL,
    "corrected": ReportStatus.FINAL,
    "p": ReportStatus.PRELIMINARY,
    "preliminary": ReportStatus.PRELIMINARY,
    "r": ReportStatus.PRELIMINARY,
    "s": ReportStatus.PRELIMINARY,
    "a": ReportStatus.ADDENDUM,
    "addendum": ReportStatus.ADDENDUM,
}
# `datetime.fromisoformat` takes any sign between date and time, and so reads wrong digits as a time.
_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?", re.ASCII)
_COMPACT_TIME = re.compile(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.\d+)?([+-]\d{4})?", re.ASCII)


def split(text: str) -> tuple[str, str]:
    """Findings and impression of a whole report, at its headings; without headings all is findings."""
    parts = {"findings": "", "impression": ""}
    name, start = "findings", 0
    for match in _HEADING.finditer(text):
        parts[name] += text[start : match.start()] + "\n"
        name, start = match.lastgroup or name, match.end()
    parts[name] += text[start:]
    return parts["findings"].strip(), parts["impression"].strip()


def status(text: str) -> ReportStatus:
    """Status in words or as a code of HL7 table 0123. Raises RefusedReport."""
    try:
        return _STATUSES[text.strip().lower()]
    except KeyError:
        raise RefusedReport("the status is not final, preliminary, addendum or corrected") from None


def moment(text: str) -> datetime | None:
    """ISO 8601, DICOM DT or HL7 TS as aware UTC; without a zone it is this machine's. Raises RefusedReport."""
    text = text.strip().replace("/", "-")
    if not text:
        return None
    compact = _COMPACT_TIME.fullmatch(text)
    try:
        if compact is None:
            if not _ISO_TIME.fullmatch(text):
                raise ValueError
            parsed = datetime.fromisoformat(text)
        else:
            day, hour, minute, second, zone = compact.groups()
            digits = day + (hour or "00") + (minute or "00") + (second or "00")
            parsed = datetime.fromisoformat(f"{digits[:8]}T{digits[8:]}{zone or ''}")
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise RefusedReport("the time is not of the form 2026-03-01 12:00:00 or 20260301120000") from None


def checked(
    source: ReportSource,
    *,
    findings: str,
    impression: str,
    accession_number: str,
    study_instance_uid: str,
    patient_id: str,
    report_status: ReportStatus,
    reported_at: datetime | None,
) -> ReceivedReport:
    """A report that can be kept.

    Raises
    ------
    RefusedReport
        If it has no text, too much text, no key, or a key that cannot be one.
    """
    keys = [text.strip() for text in (accession_number, study_instance_uid, patient_id)]
    findings, impression = findings.strip(), impression.strip()
    if not keys[0] and not keys[1]:
        raise RefusedReport("neither accession number nor Study Instance UID")
    if keys[1] and not is_valid_uid(keys[1]):
        raise RefusedReport("the Study Instance UID is not a UID")
    if any(len(key) > _MAXIMUM_KEY or not key.isprintable() for key in keys):
        raise RefusedReport(f"a key with more than {_MAXIMUM_KEY} characters, or with control characters")
    if not findings and not impression:
        raise RefusedReport("no text")
    if len(findings) + len(impression) > MAXIMUM_TEXT:
        raise RefusedReport(f"more than {MAXIMUM_TEXT} characters of text")
    if "\0" in findings or "\0" in impression:
        raise RefusedReport("the text holds NUL characters")
    return ReceivedReport(
        source=source,
        status=report_status,
        findings=findings,
        impression=impression,
        accession_number=keys[0] or None,
        study_instance_uid=keys[1] or None,
        patient_id=keys[2] or None,
        reported_at=reported_at,
    )
