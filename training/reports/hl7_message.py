"""HL7 v2 ORU^R01: bytes to reports, and the acknowledgement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import hl7

from clearfilm.errors import ClearfilmError, RefusedReport
from db.models import ReportSource, ReportStatus
from db.reports import ReceivedReport
from training.reports import parts

# MSH-18, HL7 table 0211.
_CHARSETS = {
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "GB 18030-2000": "gb18030",
    "GB 18030": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gb18030",
    "GB2312": "gb18030",
    "ASCII": "ascii",
    "8859/1": "latin-1",
}
# Of OBX-3: a component by itself (IHE suffixes), or words within it.
_SUFFIXES = {"imp": "impression", "gdt": "findings", "adt": "addendum"}
_IMPRESSION = ("impression", "conclusion", "opinion", "19005-8", "印象", "诊断", "结论", "意见")
_FINDINGS = ("finding", "description", "59776-5", "18782-3", "所见", "描述", "表现")
_ADDENDUM = ("addendum", "补充")
_CODED_TYPES = ("CE", "CWE")
_TEXT_TYPES = ("TX", "FT", "ST", *_CODED_TYPES, "")
_OF_AN_ORDER = ("ORC", "OBR", "OBX", "NTE", "ZDS")
# Of OBR-25 and OBX-11: cancelled, deleted, wrong; not final yet.
_WITHDRAWN = frozenset("XDW")
_PRELIMINARY = frozenset("PRSI")
_SEGMENT = re.compile("[A-Z][A-Z0-9]{2}")
_ESCAPE = re.compile(r"\\([A-Z.][^\\]{0,200})\\")
_ESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", ".br": "\n", ".sp": "\n"}
_STUDY_INSTANCE_UID = "110180"  # DCM: Study Instance UID


class RefusedMessage(ClearfilmError):
    """A message that is not for us, or cannot be read: AR. Another try will not help."""


@dataclass
class _Group:
    """An order with what stands below it."""

    segments: list[Any]
    patient_id: str
    uid: str

    @property
    def order(self) -> Any | None:
        return next((segment for segment in self.segments if _name(segment) == "OBR"), None)


@dataclass(frozen=True)
class Message:
    """A parsed ORU^R01."""

    parsed: Any
    encoding: str

    def reports(self, accession_field: str) -> list[ReceivedReport]:
        """All reports of the message, one for each OBR with text.

        Parameters
        ----------
        accession_field : str
            Such as ``OBR-3``; its first component counts.

        Raises
        ------
        RefusedReport
            If any of them cannot be kept: the message is taken as a whole or not at all.
        """
        found = [
            self._report(group, accession_field)
            for group in self._groups()
            if any(_name(segment) == "OBX" for segment in group.segments)
        ]
        if not found:
            raise RefusedReport("no observation (OBX) below an order (OBR)")
        return found

    def acknowledge(self, code: str, reason: str = "") -> bytes:
        """AA, AE or AR with a reason, in the encoding of the message."""
        header = [str(self.parsed[0](place)) for place in (3, 4, 5, 6, 10)]
        return acknowledgement(code, header, reason).encode(self.encoding, "replace")

    def _groups(self) -> Iterator[_Group]:
        """An ORC or OBR begins a group; an ORC belongs to the OBR after it. A PID begins another patient.

        A Study Instance UID (ZDS) belongs to the order that it stands below, or to all if it stands before them.
        """
        patient_id = uid = ""
        group: _Group | None = None
        for segment in self.parsed:
            name = _name(segment)
            begins = name == "ORC" or (name == "OBR" and (group is None or group.order is not None))
            if group is not None and (begins or name == "PID"):
                yield group
                group = None
            if name == "PID":
                patient_id, uid = _component(segment, 3), ""
            elif name == "ZDS" and group is None:
                uid = _component(segment, 1)
            elif begins or (name in _OF_AN_ORDER and group is None):
                group = _Group([segment], patient_id, uid)
            elif name in _OF_AN_ORDER and group is not None:
                group.segments.append(segment)
        if group is not None:
            yield group

    def _report(self, group: _Group, accession_field: str) -> ReceivedReport:
        order = group.order
        if order is None:
            raise RefusedReport("observations (OBX) without an order (OBR)")
        code = _component(order, 25)
        if code in _WITHDRAWN:
            raise RefusedReport(f"result status {code}: cancelled or wrong reports are not taken")
        uid, statuses = group.uid, set[str]()
        texts: dict[str, list[str]] = {"findings": [], "impression": [], "": []}
        part, addendum, is_kept = "", False, True
        for segment in group.segments:
            if _name(segment) == "ZDS":
                uid = _component(segment, 1)
            elif _name(segment) == "OBX":
                identifier, status = _field(segment, 3).lower(), _component(segment, 11)
                is_kept = status not in _WITHDRAWN
                if _STUDY_INSTANCE_UID in identifier:
                    uid = _component(segment, 5)
                elif is_kept and _component(segment, 2) in _TEXT_TYPES:
                    part = _part(identifier)
                    addendum |= part == "addendum"
                    part = "" if part == "addendum" else part
                    texts[part].append(self._text(segment, 5, coded=_component(segment, 2) in _CODED_TYPES))
                    statuses.add(status)
            elif _name(segment) == "NTE" and is_kept:  # a remark on the observation before it
                texts[part].append(self._text(segment, 3))
        findings, impression = "\n".join(texts["findings"]), "\n".join(texts["impression"])
        rest = "\n".join(texts[""])
        if not findings and not impression:
            findings, impression = parts.split(rest)
        elif rest:
            findings = f"{findings}\n{rest}"
        wanted, number = accession_field.split("-")
        keyed = next((segment for segment in group.segments if _name(segment) == wanted), None)
        preliminary = "P" if statuses & _PRELIMINARY else ""
        return parts.checked(
            ReportSource.HL7,
            findings=findings,
            impression=impression,
            accession_number=_component(keyed, int(number)) if keyed is not None else "",
            study_instance_uid=uid,
            patient_id=group.patient_id,
            report_status=ReportStatus.ADDENDUM if addendum else parts.status(code or preliminary),
            reported_at=parts.moment(_component(order, 22)),
        )

    def _text(self, segment: Any, number: int, *, coded: bool = False) -> str:
        """Text of a field: repetitions are lines; of coded values their text; escapes resolved."""
        values = _field(segment, number).split("~")
        if coded:
            values = [text or code for code, text in (_first_two(value.split("^")) for value in values)]
        return "\n".join(_unescaped(value, self.encoding) for value in values)


def _first_two(components: list[str]) -> tuple[str, str]:
    return components[0], components[1] if len(components) > 1 else ""


def _unescaped(text: str, encoding: str) -> str:
    """Escape sequences resolved (HL7 2.5.1, 2.7); of highlighting and site-made ones nothing is left.

    The parser's own function logs what it does not know, with the text around it.
    """

    def resolved(match: re.Match[str]) -> str:
        name = match[1]
        if name in _ESCAPES:
            return _ESCAPES[name]
        if re.fullmatch("X(?:[0-9A-Fa-f]{2})+", name):
            return bytes.fromhex(name[1:]).decode(encoding, "replace")
        return " "

    return _ESCAPE.sub(resolved, text)


def parse(block: bytes, default_encoding: str) -> Message:
    """Decode and parse one message.

    Parameters
    ----------
    block : bytes
        What stood between the MLLP signs.
    default_encoding : str
        If MSH-18 names none.

    Raises
    ------
    RefusedMessage
        If it is no ORU^R01, names an unknown character set, or does not keep to the one that it names.
    """
    if not block.startswith(b"MSH") or len(block) < 8:
        raise RefusedMessage("the message does not begin with MSH")
    encoding = _encoding(block, default_encoding)
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        raise RefusedMessage(f"the message is not {encoding}; name its character set in MSH-18") from None
    try:
        parsed = hl7.parse(text.replace("\r\n", "\r").replace("\n", "\r"))
        kind, separators = str(parsed[0](9)).split("^"), str(parsed[0](2))
    except (hl7.HL7Exception, IndexError, KeyError, ValueError, TypeError) as error:
        raise RefusedMessage("the message cannot be parsed") from error
    if not separators.startswith("^~\\&"):
        raise RefusedMessage("MSH-2 must be ^~\\&")
    if kind[:2] != ["ORU", "R01"]:
        raise RefusedMessage("only ORU^R01 is taken")
    names = [_name(segment) for segment in parsed if "".join(map(str, segment)).strip()]
    if names.count("MSH") > 1:
        raise RefusedMessage("more than one message (MSH) in a block")
    if not all(_SEGMENT.fullmatch(name) for name in names):
        raise RefusedMessage("a line is no segment: a line break within a text must be written as \\.br\\")
    return Message(parsed, encoding)


def header_of(block: bytes) -> list[str]:
    """MSH-3, 4, 5, 6 and 10 of a message that cannot be taken, as far as they can be read."""
    fields = _header_fields(block) if block.startswith(b"MSH") and len(block) > 3 else []
    return [fields[place - 1] if len(fields) >= place else "" for place in (3, 4, 5, 6, 10)]


def acknowledgement(code: str, header: list[str], reason: str = "") -> str:
    """ACK for a message with these MSH-3, 4, 5, 6 and 10."""
    now = datetime.now(UTC)
    sender = "|".join([header[2] or "CLEARFILM", header[3], header[0], header[1]])
    number = now.strftime("%Y%m%d%H%M%S%f")
    text = "".join(" " if character in "|^~\\&\r\n" else character for character in reason)[:250]
    return (
        f"MSH|^~\\&|{sender}|{now:%Y%m%d%H%M%S}+0000||ACK^R01^ACK|{number}|P|2.5.1||||||UNICODE UTF-8\r"
        f"MSA|{code}|{header[4]}|{text}\r"
    )


def _encoding(block: bytes, default: str) -> str:
    """MSH-18. The header is read with tolerance, since its encoding is what it is asked for."""
    fields = _header_fields(block)
    charset = fields[17].split("~")[0].strip().upper() if len(fields) > 17 else ""
    if not charset:
        return default
    try:
        return _CHARSETS[charset]
    except KeyError:
        raise RefusedMessage("the character set in MSH-18 is not known") from None


def _header_fields(block: bytes) -> list[str]:
    return _tolerant(block.split(b"\r", 1)[0].split(b"\n", 1)[0]).split(chr(block[3]))


def _tolerant(header: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return header.decode(encoding)
        except UnicodeDecodeError:
            continue
    return header.decode("latin-1")


def _part(identifier: str) -> str:
    """Findings, impression or addendum; empty: it does not tell."""
    for component in identifier.replace("&", "^").split("^"):
        if component in _SUFFIXES:
            return _SUFFIXES[component]
    for part, words in (("addendum", _ADDENDUM), ("impression", _IMPRESSION), ("findings", _FINDINGS)):
        if any(word in identifier for word in words):
            return part
    return ""


def _name(segment: Any) -> str:
    return str(segment[0])


def _field(segment: Any, number: int) -> str:
    try:
        return str(segment(number))
    except (IndexError, KeyError):
        return ""


def _component(segment: Any, number: int) -> str:
    """First component of the first repetition."""
    return _field(segment, number).split("~")[0].split("^")[0].strip()
