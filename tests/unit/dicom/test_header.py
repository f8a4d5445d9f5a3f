"""The scan of raw bytes, and the attributes."""

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from clearfilm.dicom import statuses
from clearfilm.dicom.header import MAXIMUM_DEPTH, MAXIMUM_ELEMENTS, FilmHeader, parse, scan
from clearfilm.errors import RefusedObject

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]


def film(**changes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.3"
    ds.Modality, ds.PatientName, ds.PatientID = "CR", "Demo^Anna", "7"
    ds.Rows, ds.Columns = 4, 3
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, syntax: str) -> bytes:
    stream = BytesIO()
    target = DicomFileLike(stream)
    target.is_implicit_VR, target.is_little_endian = syntax == ImplicitVRLittleEndian, True
    write_dataset(target, ds)
    return stream.getvalue()


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit VR element with a length of choice."""
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OW", b"OB", b"SQ", b"UN"):
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length) + value


def nested(depth: int) -> bytes:
    """Sequences of undefined length inside one another."""
    start = element(0x00400275, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return start * depth + end * depth


def refusal(data: bytes, syntax: str = ExplicitVRLittleEndian) -> RefusedObject:
    with pytest.raises(RefusedObject) as caught:
        scan(data, syntax)
    return caught.value


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_scan_finds_identity_and_the_place_of_the_pixels(syntax: str) -> None:
    header = film()
    data = written(header, syntax)
    header.PixelData = b"\x01" * 12
    header["PixelData"].VR = "OW"
    scanned = scan(written(header, syntax), syntax)
    assert scanned.sop_instance_uid == "1.2.3.4"
    assert scanned.series_instance_uid == "1.2.3.3"
    assert scanned.header_bytes == len(data)
    assert scanned.pixel_data_bytes == 12


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_data_set_cut_anywhere_is_refused_or_lacks_only_whole_elements(syntax: str) -> None:
    data = written(film(), syntax)
    whole = set()
    for end in range(len(data)):
        with suppress(RefusedObject):
            whole.add(scan(data[:end], syntax).header_bytes)
    # The identity is whole only when the Series Instance UID is; Rows and Columns follow it.
    assert len(whole) == 2


@given(st.binary(max_size=400), st.sampled_from([*SYNTAXES, JPEGLosslessSV1]))
def test_random_bytes_are_refused(data: bytes, syntax: str) -> None:
    assert refusal(data, syntax).status == statuses.CANNOT_UNDERSTAND


@given(st.data(), st.sampled_from(SYNTAXES))
def test_a_changed_byte_never_raises_anything_but_a_refusal(draw: st.DataObject, syntax: str) -> None:
    data = bytearray(written(film(RequestAttributesSequence=[film()]), syntax))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        scanned = scan(bytes(data), syntax)
    except RefusedObject:
        return
    assert isinstance(parse(data[: scanned.header_bytes], syntax), FilmHeader)


def test_nesting_is_limited() -> None:
    identity = written(film(), ExplicitVRLittleEndian)
    scan(identity + nested(MAXIMUM_DEPTH), ExplicitVRLittleEndian)
    assert "nested deeper" in refusal(identity + nested(MAXIMUM_DEPTH + 1)).reason


def test_five_thousand_levels_are_refused_without_recursion() -> None:
    assert "nested deeper" in refusal(written(film(), ExplicitVRLittleEndian) + nested(5000)).reason


def test_nesting_in_implicit_sequences_of_defined_length_is_seen() -> None:
    ds = Dataset()
    for _ in range(MAXIMUM_DEPTH + 1):
        outer = Dataset()
        outer.RequestAttributesSequence = [ds]
        ds = outer
    assert "nested deeper" in refusal(written(ds, ImplicitVRLittleEndian), ImplicitVRLittleEndian).reason


def test_the_number_of_elements_is_limited() -> None:
    many = element(0x00091001, b"UN", b"") * MAXIMUM_ELEMENTS
    assert "more than" in refusal(written(film(), ExplicitVRLittleEndian) + many).reason


def test_empty_items_count_as_elements() -> None:
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000
    assert "more than" in refusal(element(0x00400275, b"SQ", items)).reason


def test_a_length_beyond_the_end_is_refused() -> None:
    data = written(film(), ExplicitVRLittleEndian) + element(0x7FE00010, b"OW", b"\0" * 10, 3_000_000_000)
    assert refusal(data).reason == "a length leads outside the data set"


def test_an_item_may_not_lead_out_of_its_sequence() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 100)
    data = element(0x00400275, b"SQ", item) + written(film(), ExplicitVRLittleEndian)
    assert refusal(data).reason == "a length leads outside the data set"


def test_encapsulated_pixel_data_without_an_end_are_refused() -> None:
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    data = written(film(), ExplicitVRLittleEndian) + element(0x7FE00010, b"OB", fragment, 0xFFFFFFFF)
    assert "no end" in refusal(data).reason


def test_delimiter_bytes_inside_a_fragment_do_not_end_the_pixel_data() -> None:
    delimiter = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 8) + delimiter
    data = written(film(), ExplicitVRLittleEndian)
    data += element(0x7FE00010, b"OB", fragment + delimiter, 0xFFFFFFFF)
    assert scan(data, JPEGLosslessSV1).pixel_data_bytes == len(fragment + delimiter)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_identity_is_refused(keyword: str) -> None:
    ds = film()
    delattr(ds, keyword)
    assert "is missing" in refusal(written(ds, ExplicitVRLittleEndian)).reason


def test_a_repeated_identity_is_refused() -> None:
    data = written(film(), ExplicitVRLittleEndian) + element(0x00080018, b"UI", b"1.2.9\0")
    assert refusal(data).reason == "SOP Instance UID occurs twice"


@pytest.mark.parametrize("value", [b"../../etc/passwd", b"1.2.\xff3", b"1..2", b"1.2.3 4 ", b"1" * 66])
def test_a_sop_instance_uid_that_is_none_is_refused_with_its_own_status(value: bytes) -> None:
    ds = film()
    del ds.SOPInstanceUID
    data = written(ds, ExplicitVRLittleEndian) + element(0x00080018, b"UI", value)
    assert refusal(data).status == statuses.INVALID_SOP_INSTANCE


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"])
def test_deflated_and_big_endian_are_refused(syntax: str) -> None:
    assert "are not taken" in refusal(written(film(), ExplicitVRLittleEndian), syntax).reason


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        ("", "王^小东".encode("gb18030"), "王^小东"),
        ("ISO_IR 192", "王^小东".encode("gb18030"), "王^小东"),
        ("\\ISO 2022 IR 58", b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
        ("", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("", "王^小东".encode(), "王^小东"),
        ("NO SUCH SET", b"Demo^Anna", "Demo^Anna"),
        ("", b"Demo\x00\r\n^Anna\x1b[31m", "Demo^Anna31m"),
    ],
)
def test_names_are_read_as_well_as_can_be(charset: str, raw: bytes, expected: str) -> None:
    ds = film()
    del ds.PatientName
    data = element(0x00080005, b"CS", charset.encode()) + written(ds, ExplicitVRLittleEndian)
    data += element(0x00100010, b"PN", raw)
    assert parse(data, ExplicitVRLittleEndian).patient_name == expected


def test_damaged_attributes_do_not_hide_the_others() -> None:
    data = element(0x00080060, b"CS", b"CR") + element(0x00280008, b"IS", b"many")
    data += element(0x00280010, b"US", b"\x01\x00\x02\x00") + element(0x00280011, b"US", b"\x09\x00")
    header = parse(data, ExplicitVRLittleEndian)
    assert (header.modality, header.number_of_frames, header.rows, header.columns) == ("CR", None, None, 9)


def test_long_texts_are_cut() -> None:
    data = element(0x00081030, b"LO", b"x" * 5000)
    assert len(parse(data, ExplicitVRLittleEndian).study_description) == 256


def test_codes_are_read_from_sequences() -> None:
    ds = film()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "272479007", "SCT"
    ds.ViewCodeSequence = [item]
    for syntax in SYNTAXES:
        assert parse(written(ds, syntax), syntax).view_codes == ("272479007",)


@given(st.binary(max_size=300))
def test_parse_never_raises(data: bytes) -> None:
    assert isinstance(parse(data, ExplicitVRLittleEndian), FilmHeader)
