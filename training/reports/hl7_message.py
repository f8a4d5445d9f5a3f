"""HL7 v2 ORU^R01: bytes to reports, and the acknowledgement."""

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
_TEXT_TYPES = ("TX", "FT", "ST", "CE", "CWE", "")
_STUDY_INSTANCE_UID = "110180"  # DCM: Study Instance UID


class RefusedMessage(ClearfilmError):
    """A message that is not for us, or cannot be read: AR. Another try will not help."""


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
        patient_id = self._patient_id()
        uid = next((_component(segment, 1) for segment in self.parsed if _name(segment) == "ZDS"), "")
        found = [
            self._report(group, accession_field, patient_id, uid)
            for group in self._groups()
            if any(_name(segment) == "OBX" for segment in group)
        ]
        if not found:
            raise RefusedReport("no observation (OBX) below an order (OBR)")
        return found

    def acknowledge(self, code: str, reason: str = "") -> bytes:
        """AA, AE or AR with a reason, in the encoding of the message."""
        header = [str(self.parsed[0](place)) for place in (3, 4, 5, 6, 10)]
        return acknowledgement(code, header, reason).encode(self.encoding, "replace")

    def _patient_id(self) -> str:
        return next((_component(segment, 3) for segment in self.parsed if _name(segment) == "PID"), "")

    def _groups(self) -> Iterator[list[Any]]:
        """An ORC or OBR begins a group; an ORC belongs to the OBR after it."""
        group: list[Any] = []
        for segment in self.parsed:
            name = _name(segment)
            begins = name == "ORC" or (name == "OBR" and any(_name(one) == "OBR" for one in group))
            if begins and group:
                yield group
                group = []
            if name in ("ORC", "OBR", "OBX"):
                group.append(segment)
        if group:
            yield group

    def _report(self, group: list[Any], accession_field: str, patient_id: str, uid: str) -> ReceivedReport:
        order = next((segment for segment in group if _name(segment) == "OBR"), None)
        if order is None:
            raise RefusedReport("observations (OBX) without an order (OBR)")
        wanted, number = accession_field.split("-")
        keyed = next((segment for segment in group if _name(segment) == wanted), None)
        texts: dict[str, list[str]] = {"findings": [], "impression": [], "": []}
        addendum = False
        for segment in group:
            if _name(segment) != "OBX" or _component(segment, 2) not in _TEXT_TYPES:
                continue
            identifier = _field(segment, 3).lower()
            if _STUDY_INSTANCE_UID in identifier:
                uid = _component(segment, 5)
                continue
            part = _part(identifier)
            addendum |= part == "addendum"
            texts["" if part == "addendum" else part].append(self._text(segment))
        findings, impression = "\n".join(texts["findings"]), "\n".join(texts["impression"])
        rest = "\n".join(texts[""])
        if not findings and not impression:
            findings, impression = parts.split(rest)
        elif rest:
            findings = f"{findings}\n{rest}"
        code = _component(order, 25)
        if code in ("X", "D", "W"):
            raise RefusedReport(f"result status {code}: cancelled or wrong reports are not taken")
        return parts.checked(
            ReportSource.HL7,
            findings=findings,
            impression=impression,
            accession_number=_component(keyed, int(number)) if keyed is not None else "",
            study_instance_uid=uid,
            patient_id=patient_id,
            report_status=ReportStatus.ADDENDUM if addendum else parts.status(code),
            reported_at=parts.moment(_component(order, 22)),
        )

    def _text(self, segment: Any) -> str:
        """OBX-5: repetitions are lines; of a coded value the text; escapes resolved."""
        value = _field(segment, 5)
        if _component(segment, 2) in ("CE", "CWE"):
            code, _, rest = value.partition("^")
            value = rest.split("^")[0] or code
        lines = value.replace("~", "\n").replace("\\.br\\", "\n").replace("\\.sp\\", "\n")
        return "\n".join(str(self.parsed.unescape(line)) for line in lines.split("\n"))


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
    return Message(parsed, encoding)


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
    header = block.split(b"\r", 1)[0].split(b"\n", 1)[0]
    fields = _tolerant(header).split(chr(block[3]))
    charset = fields[17].split("~")[0].strip().upper() if len(fields) > 17 else ""
    if not charset:
        return default
    try:
        return _CHARSETS[charset]
    except KeyError:
        raise RefusedMessage("the character set in MSH-18 is not known") from None


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
