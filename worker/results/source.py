"""What results take over from a film's header: text byte for byte, other values if they are sound.

Text is never decoded. Films arrive with wrong, missing and exotic character sets, and a PACS matches a
result to its patient by the bytes; so the bytes are copied, together with Specific Character Set.
"""

import re
import struct
from collections.abc import Iterable
from datetime import date
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_PN, write_text
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_TEXT_VRS: Final = frozenset({"PN", "LO", "SH", "LT", "ST", "UC", "UT"})
# PS3.5 6.2: one value of each of the other VRs that are copied.
_FORMATS: Final = {
    "AS": re.compile(rb"\d{3}[DWMY]"),
    "CS": re.compile(rb"[A-Z0-9_ ]{0,16}"),
    "DA": re.compile(rb"\d{8}"),
    "DS": re.compile(rb"(?=.{1,16}$) *[+-]?(\d+(\.\d*)?|\.\d+)([Ee][+-]?\d+)? *"),
    "IS": re.compile(rb" *[+-]?\d{1,11} *"),
    "TM": re.compile(rb"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"),
    "UI": re.compile(rb"(?=.{1,64}$)\d+(\.\d+)*"),
}
_SEXES: Final = frozenset({b"M", b"F", b"O"})
# The length field of most VRs has 16 bits in Explicit VR, and values are even.
_LONGEST_VALUE: Final = 0xFFFE
# JPEG 2000 that may be lossy is left to the attribute: many senders use that syntax losslessly.
_LOSSY_SYNTAXES: Final = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
# What pydicom raises for elements whose bytes are damaged.
_DAMAGE: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """Take elements over from a film's header.

    Parameters
    ----------
    source : pydicom.Dataset
        As read from a file. Text that the reader has decoded already is encoded again, which is exact
        only if Specific Character Set tells the truth.
    keywords : iterable of str
        Attributes to copy; sequences with all their standard text, codes, dates and UIDs.

    Returns
    -------
    pydicom.Dataset
        Raw elements for Explicit VR Little Endian. Attributes that are absent, damaged or malformed in
        the source are absent here; text is never malformed: it is copied whatever it holds.
    """
    return _copy(source, [Tag(keyword) for keyword in keywords])


def values(source: Dataset, keyword: str) -> list[str]:
    """The values of a text-like attribute, for use by us.

    Parameters
    ----------
    source : pydicom.Dataset
        Header as read from a file.
    keyword : str
        An attribute with one of the VRs CS, DS, LO, SH, UI.

    Returns
    -------
    list of str
        Without padding; empty if the attribute is absent, empty, malformed or not ASCII.
    """
    value = _value(source, Tag(keyword))
    if not value or not value.isascii():
        return []
    return [part.strip() for part in value.decode("ascii").split("\\")]


def number(source: Dataset, keyword: str) -> int | None:
    """The value of an attribute with VR US, if there is one above zero."""
    try:
        found = int(source[keyword].value)
    except _DAMAGE:
        return None
    return found if found > 0 else None


def is_lossy(source: Dataset) -> bool:
    """Whether the film went through lossy compression, by attribute or encoding (PS3.3 C.7.6.1.1.5)."""
    file_meta = getattr(source, "file_meta", None)
    syntax = file_meta.get("TransferSyntaxUID") if file_meta is not None else None
    return values(source, "LossyImageCompression") == ["01"] or syntax in _LOSSY_SYNTAXES


def character_set(source: Dataset) -> bytes:
    """Specific Character Set as it stands in the source, without padding; empty if absent or not ASCII.

    Unknown terms are kept: they describe the text that is copied with them.
    """
    value = _value(source, CHARACTER_SET, check=False) or b""
    return value if value.isascii() and len(value) <= _LONGEST_VALUE else b""


def _copy(source: Dataset, tags: Iterable[BaseTag]) -> Dataset:
    result = Dataset()
    for tag in tags:
        element = _copy_element(source, tag)
        if element is not None:
            result[tag] = element
    return result


def _copy_element(source: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    vr = dictionary_VR(tag)
    if vr == "SQ":
        return _copy_sequence(source, tag)
    value = _value(source, tag)
    if value is None or len(value) > _LONGEST_VALUE:
        return None
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def _copy_sequence(source: Dataset, tag: BaseTag) -> DataElement | None:
    try:
        items = [_copy(item, _standard_tags(item)) for item in source[tag].value]
    except _DAMAGE:
        return None
    items = [item for item in items if item]
    return DataElement(tag, "SQ", Sequence(items)) if items else None


def _standard_tags(item: Dataset) -> list[BaseTag]:
    return [tag for tag in item.keys() if dictionary_has_tag(tag) and tag.element != 0]  # noqa: SIM118


def _value(source: Dataset, tag: BaseTag, *, check: bool = True) -> bytes | None:
    """Bytes of an element; None if it is absent, of a VR that is not copied, or malformed."""
    if tag not in source:
        return None
    vr = dictionary_VR(tag)
    try:
        value = _encoded(source, tag, vr)
    except _DAMAGE:
        return None
    if vr in _TEXT_VRS:
        return value
    value = value.strip(b" \0")
    return value if not check or _is_sound(tag, vr, value) else None


def _encoded(source: Dataset, tag: BaseTag, vr: str) -> bytes:
    element: Any = source.get_item(tag)
    if element.is_raw:
        return element.value or b""
    buffer = DicomBytesIO()
    encodings = convert_encodings(source.get("SpecificCharacterSet", default_encoding))
    if vr == "PN":
        write_PN(buffer, element, encodings)
    elif vr in _TEXT_VRS:
        write_text(buffer, element, encodings)
    else:
        text = element.value if element.VM > 1 else [element.value]
        buffer.write("\\".join("" if part is None else str(part) for part in text).encode("ascii"))
    return buffer.getvalue()


def _is_sound(tag: BaseTag, vr: str, value: bytes) -> bool:
    if vr not in _FORMATS:
        return False
    if tag == Tag("PatientSex"):
        return value in _SEXES
    return all(_FORMATS[vr].fullmatch(part) for part in value.split(b"\\")) and (
        vr != "DA" or all(_is_date(part) for part in value.split(b"\\"))
    )


def _is_date(value: bytes) -> bool:
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True
