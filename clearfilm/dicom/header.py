"""The header of a received data set: a scan of the raw bytes first, then the attributes.

`scan` runs before any library sees the bytes. It walks the element stream once, never touches pixel
bytes, and bounds what a parser can be made to do: depth, number of elements, lengths.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, fields
from io import BytesIO
from struct import Struct
from typing import Any, Final

from pydicom import Dataset
from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import PN_DELIMS

from clearfilm.dicom import statuses
from clearfilm.dicom.uids import is_valid_uid
from clearfilm.errors import RefusedObject

MAXIMUM_DEPTH: Final = 32
MAXIMUM_ELEMENTS: Final = 20_000
MAXIMUM_TEXT: Final = 256
RESULT_SERIES_PREFIX: Final = "AI CXR triage"

_ESCAPE = b"\x1b"
_ESCAPE_SEQUENCE = re.compile(r"\x1b[ -/]*[0-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEFAULT_ENCODING = python_encoding[""]
_IMPLICIT = Struct("<HHI")
_EXPLICIT = Struct("<HH2sH")
_LONG = Struct("<I")
_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
# PS3.5 7.1.2; as in pydicom, a VR that nobody knows has a 2-byte length.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_IDENTITY = {
    _SOP_CLASS_UID: "SOP Class UID",
    _SOP_INSTANCE_UID: "SOP Instance UID",
    _STUDY_INSTANCE_UID: "Study Instance UID",
    _SERIES_INSTANCE_UID: "Series Instance UID",
}


@dataclass(frozen=True)
class ScannedObject:
    """What the scan of a data set found.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid : str
        Checked to be UIDs, without padding.
    header_bytes : int
        Length of the data set up to the Pixel Data element, or of the whole if it has none.
    pixel_data_bytes : int or None
        Length of the value of Pixel Data, with item headers where it is encapsulated; None if there is none.
    elements : int
        Elements and items, nested ones included.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    header_bytes: int
    pixel_data_bytes: int | None
    elements: int


def scan(data: bytes | memoryview, transfer_syntax_uid: str) -> ScannedObject:
    """Walk the element stream of a data set once and check that it is sound.

    Parameters
    ----------
    data : bytes or memoryview
        The data set without file meta information.
    transfer_syntax_uid : str
        Of the accepted presentation context. Compressed ones are explicit little endian (PS3.5 A.4).

    Returns
    -------
    ScannedObject

    Raises
    ------
    RefusedObject
        0xC000: a length leads outside, more than 32 levels or 20,000 elements, an identifying element is
        missing, repeated or no UID, a byte order or compression of the data set that is not taken.
        0x0117: the SOP Instance UID is not a UID.
    """
    if transfer_syntax_uid in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        raise _refused("deflated and big endian data sets are not taken")
    scanner = _Scanner(data)
    scanner.data_set(0, len(data), implicit=transfer_syntax_uid == ImplicitVRLittleEndian, depth=0)
    start = scanner.pixel_data_start
    return ScannedObject(
        sop_class_uid=_uid(scanner.identity, _SOP_CLASS_UID),
        sop_instance_uid=_uid(scanner.identity, _SOP_INSTANCE_UID),
        study_instance_uid=_uid(scanner.identity, _STUDY_INSTANCE_UID),
        series_instance_uid=_uid(scanner.identity, _SERIES_INSTANCE_UID),
        header_bytes=len(data) if start is None else start,
        pixel_data_bytes=scanner.pixel_data_bytes,
        elements=scanner.elements,
    )


def _refused(reason: str) -> RefusedObject:
    return RefusedObject(statuses.CANNOT_UNDERSTAND, reason)


def _uid(identity: dict[int, bytes], tag: int) -> str:
    name = _IDENTITY[tag]
    value = identity.get(tag, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if not value:
        raise _refused(f"{name} is missing")
    if not is_valid_uid(value):
        status = statuses.INVALID_SOP_INSTANCE if tag == _SOP_INSTANCE_UID else statuses.CANNOT_UNDERSTAND
        raise RefusedObject(status, f"{name} is not a UID")
    return value


class _Scanner:
    """The walk; offsets count from the start of the data set."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self.elements = 0
        self.identity: dict[int, bytes] = {}
        self.pixel_data_start: int | None = None
        self.pixel_data_bytes: int | None = None

    def data_set(self, offset: int, end: int, *, implicit: bool, depth: int, delimited: bool = False) -> int:
        """Walk elements up to `end`, or to an item delimiter if `delimited`; where the walk stopped."""
        while offset < end:
            start = offset
            tag, vr, length, offset = self._element(offset, end, implicit)
            if delimited and tag == _ITEM_END:
                return offset
            if tag >> 16 == 0xFFFE:
                raise _refused("a delimiter stands where an element is expected")
            value = offset
            if length == _UNDEFINED and tag == _PIXEL_DATA:
                offset = self._fragments(offset, end)
            elif length == _UNDEFINED:
                offset = self._sequence(offset, end, implicit=implicit, depth=depth, delimited=True)
            else:
                offset = _inside(offset + length, end)
                if _is_sequence(tag, vr):
                    self._sequence(value, offset, implicit=implicit, depth=depth)
            if depth == 0:
                self._note(tag, start, value, offset)
        if delimited:
            raise _refused("an item has no end")
        return offset

    def _element(self, offset: int, end: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty where implicit), length and offset of the value."""
        self._count()
        value = _inside(offset + 8, end)
        if not implicit:
            group, element, vr, length = _EXPLICIT.unpack_from(self._data, offset)
            if vr in _LONG_VRS:
                value = _inside(offset + 12, end)
                (length,) = _LONG.unpack_from(self._data, offset + 8)
            if b"AA" <= vr <= b"ZZ":
                return group << 16 | element, vr, length, value
        # Some writers change to implicit VR, in UN above all (PS3.5 6.2.2); pydicom follows them, so we do.
        group, element, length = _IMPLICIT.unpack_from(self._data, offset)
        return group << 16 | element, b"", length, value

    def _sequence(self, offset: int, end: int, *, implicit: bool, depth: int, delimited: bool = False) -> int:
        if depth + 1 > MAXIMUM_DEPTH:
            raise _refused(f"sequences are nested deeper than {MAXIMUM_DEPTH} levels")
        while offset < end:
            tag, length, offset = self._item(offset, end)
            if delimited and tag == _SEQUENCE_END:
                return offset
            if tag != _ITEM:
                raise _refused("a sequence holds something other than items")
            if length == _UNDEFINED:
                offset = self.data_set(offset, end, implicit=implicit, depth=depth + 1, delimited=True)
            else:
                item_end = _inside(offset + length, end)
                offset = self.data_set(offset, item_end, implicit=implicit, depth=depth + 1)
        if delimited:
            raise _refused("a sequence has no end")
        return offset

    def _fragments(self, offset: int, end: int) -> int:
        """Skip encapsulated pixel data fragment by fragment (PS3.5 A.4)."""
        while offset < end:
            tag, length, offset = self._item(offset, end)
            if tag == _SEQUENCE_END:
                return offset
            if tag != _ITEM or length == _UNDEFINED:
                raise _refused("encapsulated pixel data hold something other than fragments")
            offset = _inside(offset + length, end)
        raise _refused("encapsulated pixel data have no end")

    def _item(self, offset: int, end: int) -> tuple[int, int, int]:
        self._count()
        value = _inside(offset + 8, end)
        group, element, length = _IMPLICIT.unpack_from(self._data, offset)
        return group << 16 | element, length, value

    def _note(self, tag: int, start: int, value: int, end: int) -> None:
        """Keep what identifies the object; a second value of it would make two parsers disagree."""
        if tag in _IDENTITY:
            if tag in self.identity:
                raise _refused(f"{_IDENTITY[tag]} occurs twice")
            self.identity[tag] = bytes(self._data[value : min(end, value + 66)])
        elif tag == _PIXEL_DATA:
            if self.pixel_data_start is not None:
                raise _refused("Pixel Data occurs twice")
            self.pixel_data_start = start
            self.pixel_data_bytes = end - value

    def _count(self) -> None:
        self.elements += 1
        if self.elements > MAXIMUM_ELEMENTS:
            raise _refused(f"more than {MAXIMUM_ELEMENTS} elements")


def _inside(offset: int, end: int) -> int:
    if offset > end:
        raise _refused("a length leads outside the data set")
    return offset


def _is_sequence(tag: int, vr: bytes) -> bool:
    if vr not in (b"", b"UN"):
        return vr == b"SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _text(keyword: str) -> Any:
    return field(default="", metadata={"keyword": keyword, "read": _read_text})


def _texts(keyword: str) -> Any:
    return field(default=(), metadata={"keyword": keyword, "read": _read_texts})


def _number(keyword: str) -> Any:
    return field(default=None, metadata={"keyword": keyword, "read": _read_number})


def _codes(keyword: str) -> Any:
    return field(default=(), metadata={"keyword": keyword, "read": _read_codes})


def _read_text(ds: Dataset, keyword: str) -> str:
    """Best reading of a text; the bytes themselves stay in the stored file."""
    return _CONTROL.sub("", text_of(ds, keyword)).strip()[:MAXIMUM_TEXT]


def _read_texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    text = _read_text(ds, keyword)
    return tuple(part.strip() for part in text.split("\\")) if text else ()


def _read_number(ds: Dataset, keyword: str) -> int | None:
    value = ds[keyword].value
    return None if value is None else int(value)


def _read_codes(ds: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(item.CodeValue)[:MAXIMUM_TEXT] for item in ds[keyword].value if "CodeValue" in item)


@dataclass(frozen=True)
class FilmHeader:
    """Attributes of a film, as received.

    Texts are the best reading of the bytes: without control characters and padding, at most 256
    characters, empty where the attribute is missing or damaged. Several values stay joined by a
    backslash. Numbers are None where missing or damaged. Codes are Code Values without their scheme.
    """

    specific_character_set: str = _text("SpecificCharacterSet")
    sop_class_uid: str = _text("SOPClassUID")
    sop_instance_uid: str = _text("SOPInstanceUID")
    study_instance_uid: str = _text("StudyInstanceUID")
    series_instance_uid: str = _text("SeriesInstanceUID")

    patient_name: str = _text("PatientName")
    patient_id: str = _text("PatientID")
    issuer_of_patient_id: str = _text("IssuerOfPatientID")
    patient_birth_date: str = _text("PatientBirthDate")
    patient_sex: str = _text("PatientSex")
    patient_age: str = _text("PatientAge")
    patient_species: str = _text("PatientSpeciesDescription")
    patient_species_codes: tuple[str, ...] = _codes("PatientSpeciesCodeSequence")
    patient_breed: str = _text("PatientBreedDescription")

    accession_number: str = _text("AccessionNumber")
    study_id: str = _text("StudyID")
    study_date: str = _text("StudyDate")
    study_time: str = _text("StudyTime")
    study_description: str = _text("StudyDescription")
    referring_physician_name: str = _text("ReferringPhysicianName")
    current_patient_location: str = _text("CurrentPatientLocation")
    institutional_department_name: str = _text("InstitutionalDepartmentName")
    requesting_service: str = _text("RequestingService")
    requested_procedure_priority: str = _text("RequestedProcedurePriority")
    study_priority_id: str = _text("StudyPriorityID")
    requested_procedure_description: str = _text("RequestedProcedureDescription")

    series_number: str = _text("SeriesNumber")
    series_description: str = _text("SeriesDescription")
    protocol_name: str = _text("ProtocolName")
    performed_procedure_step_description: str = _text("PerformedProcedureStepDescription")
    modality: str = _text("Modality")
    body_part_examined: str = _text("BodyPartExamined")
    anatomic_region_codes: tuple[str, ...] = _codes("AnatomicRegionSequence")
    view_position: str = _text("ViewPosition")
    view_codes: tuple[str, ...] = _codes("ViewCodeSequence")
    patient_position: str = _text("PatientPosition")
    patient_orientation: tuple[str, ...] = _texts("PatientOrientation")
    presentation_intent_type: str = _text("PresentationIntentType")
    image_type: tuple[str, ...] = _texts("ImageType")
    acquisition_date: str = _text("AcquisitionDate")
    content_date: str = _text("ContentDate")
    instance_number: str = _text("InstanceNumber")

    institution_name: str = _text("InstitutionName")
    manufacturer: str = _text("Manufacturer")
    manufacturer_model_name: str = _text("ManufacturerModelName")
    station_name: str = _text("StationName")
    device_serial_number: str = _text("DeviceSerialNumber")
    quality_control_image: str = _text("QualityControlImage")
    burned_in_annotation: str = _text("BurnedInAnnotation")

    rows: int | None = _number("Rows")
    columns: int | None = _number("Columns")
    number_of_frames: int | None = _number("NumberOfFrames")
    samples_per_pixel: int | None = _number("SamplesPerPixel")
    photometric_interpretation: str = _text("PhotometricInterpretation")


def parse(data: bytes | memoryview, transfer_syntax_uid: str, only: frozenset[str] | None = None) -> FilmHeader:
    """Read the attributes of a data set; never raises, whatever they hold.

    Parameters
    ----------
    data : bytes or memoryview
        The data set without file meta information, after `scan` accepted it. Pass
        ``data[:scanned.header_bytes]``: what comes after is not read, but would be copied.
    transfer_syntax_uid : str
    only : frozenset of str, optional
        Names of the attributes that are wanted; the others stay empty.

    Returns
    -------
    FilmHeader
    """
    implicit = transfer_syntax_uid == ImplicitVRLittleEndian
    tags = [tag for name, tag in _PARSED_TAGS.items() if only is None or name in only]
    tags.append(_SPECIFIC_CHARACTER_SET)
    try:
        ds = read_dataset(BytesIO(data), implicit, True, stop_when=_is_pixel_data, specific_tags=tags)
    except Exception:  # noqa: BLE001 - pydicom raises exceptions of ten kinds on damaged data sets
        return FilmHeader()
    return from_dataset(ds, only)


def from_dataset(ds: Dataset, only: frozenset[str] | None = None) -> FilmHeader:
    """The same attributes from a data set that has been read already; never raises."""
    values = {}
    for attribute in fields(FilmHeader):
        if only is not None and attribute.name not in only:
            continue
        keyword = attribute.metadata["keyword"]
        try:
            if keyword in ds:
                values[attribute.name] = attribute.metadata["read"](ds, keyword)
        except Exception:  # noqa: BLE001, S112 - one damaged attribute must not hide the others
            continue
    return FilmHeader(**values)


def text_of(ds: Dataset, keyword: str, root: Dataset | None = None) -> str:
    """The whole text of an attribute, control characters and all; may raise whatever pydicom does.

    Parameters
    ----------
    ds : pydicom.Dataset
        A data set, or an item of one.
    keyword : str
    root : pydicom.Dataset, optional
        Its character set counts where the item names none (PS3.5 6.1.2.3).
    """
    element = ds.get_item(keyword)
    if element is None or element.value is None:
        return ""
    value = element.value
    declares = ds if root is None or "SpecificCharacterSet" in ds else root
    return _decode(value, _encodings(declares)) if isinstance(value, bytes) else "\\".join(_as_list(value))


def is_own_result(header: FilmHeader) -> bool:
    """Whether an object is one that this product made, routed back to it."""
    return header.series_description.startswith(RESULT_SERIES_PREFIX)


def _is_pixel_data(tag: int, vr: str | None, length: int) -> bool:
    return tag >= _PIXEL_DATA


def _encodings(ds: Dataset) -> list[str]:
    element = ds.get_item("SpecificCharacterSet")
    value = getattr(element, "value", None) or b""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else "\\".join(_as_list(value))
    names = [name.strip(" \0") for name in text.split("\\")]
    return [python_encoding[name] for name in names if name in python_encoding] or [_DEFAULT_ENCODING]


def _as_list(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, MultiValue) else [str(value)]


def _decode(value: bytes, encodings: list[str]) -> str:
    value = value.rstrip(b"\0 ")
    if _ESCAPE in value:
        # pydicom 3.0.2 leaves the escape sequence of ISO 2022 IR 58 in the text.
        return _ESCAPE_SEQUENCE.sub("", decode_bytes(value, encodings, PN_DELIMS))
    codecs = [encodings[0]]
    if encodings[0] == _DEFAULT_ENCODING:
        # Nothing declared: Chinese bytes are the common case. GB 2312 needs pairs of high bytes,
        # which keeps Latin names apart.
        codecs = ["ascii", "utf-8", "gb2312", "latin-1"]
    for codec in [*codecs, "gb18030"]:
        with suppress(UnicodeDecodeError):
            return value.decode(codec)
    return value.decode(encodings[0], "replace")


_PARSED_TAGS = {attribute.name: int(Tag(attribute.metadata["keyword"])) for attribute in fields(FilmHeader)}
_SPECIFIC_CHARACTER_SET = _PARSED_TAGS["specific_character_set"]
