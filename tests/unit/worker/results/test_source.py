"""What is taken over from the film's header."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clearfilm.triage import Decision
from tests.result_factories import conclusion, film_above, film_not_analysed, header, opened, reread, with_raw
from worker.results.model import BuiltObject
from worker.results.secondary_capture import build_secondary_captures
from worker.results.structured_report import build_reports

# Specific Character Set and the bytes of a name, as senders write them. None: no such attribute.
NAMES = {
    "GB18030": (b"GB18030", "Zhang^San=张^三".encode("gb18030")),
    "GBK, second byte a backslash": (b"GBK", "Cheng^Shi=誠^實".encode("gbk")),
    "ISO 2022 IR 58": (b"\\ISO 2022 IR 58", b"Zhang^San=\x1b$)A\xd5\xc5^\x1b$)A\xc8\xfd"),
    "ISO 2022 IR 58, first value named": (b"ISO 2022 IR 6\\ISO 2022 IR 58", b"W^X=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1"),
    "ISO 2022 IR 149": (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "ISO 2022 IR 87": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "ISO 2022 IR 13 and 87": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "ISO_IR 192": (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode()),
    "ISO_IR 100": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "ISO_IR 144": (b"ISO_IR 144", "Люкceмбypг^Роза".encode("iso8859-5")),
    "ISO_IR 127": (b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6")),
    "no character set, GB18030 bytes": (None, "张^三".encode("gb18030")),
    "wrong character set, GB18030 bytes": (b"ISO_IR 192", "张^三".encode("gb18030")),
    "unknown character set": (b"UTF-8", "张^三".encode()),
    "empty character set": (b"", "张^三".encode("gb18030")),
    "seventy characters": (b"ISO_IR 100", b"A" * 70),
    "five components": (None, b"Adams^John Robert Quincy^^Rev.^B.A. M.Div."),
    "two names": (None, b"Doe^Jane\\Roe^Jane"),
    "padding within": (None, b"Doe ^ Jane  "),
}
COPIED_TEXT = ("PatientName", "PatientID", "StudyDescription", "ReferringPhysicianName", "AccessionNumber")


def named(character_set: bytes | None, name: bytes, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """A header whose every text is this name, read from a file."""
    # pydicom cannot write these bytes; they are put into the file afterwards.
    stand_in = "@" * len(name)
    texts = dict.fromkeys(COPIED_TEXT, stand_in)
    if character_set is not None:
        texts["SpecificCharacterSet"] = character_set.decode("ascii")
    return reread(header(**texts), syntax, (stand_in.encode(), name))


def raw_value(ds: Dataset, keyword: str) -> bytes:
    return ds.get_item(keyword).value or b""


def character_set_in(content: bytes) -> bytes | None:
    """Value of (0008,0005) in a file of ours, where it is the first element after the meta information."""
    start = 128 + 4 + 12 + int.from_bytes(content[140:144], "little")
    if content[start : start + 6] != b"\x08\x00\x05\x00CS":
        return None
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    return content[start + 8 : start + 8 + length]


def built(source: Dataset) -> list[BuiltObject]:
    """All four objects about a study of one positive film."""
    study = conclusion(film_above(source), decision=Decision.SIGNIFICANT_FINDING)
    captures = build_secondary_captures(study)
    return [*captures, *build_reports(study, captures)]


def results(source: Dataset) -> list[Dataset]:
    return [opened(each) for each in built(source)]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES.keys())
def test_names_survive_byte_for_byte(character_set: bytes | None, name: bytes, syntax: str) -> None:
    padded = name + b" " * (len(name) % 2)
    for result in results(named(character_set, name, syntax)):
        assert {raw_value(result, keyword) for keyword in COPIED_TEXT} == {padded}


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES.keys())
def test_character_set_is_that_of_the_source(character_set: bytes | None, name: bytes) -> None:
    for each in built(named(character_set, name)):
        found = character_set_in(each.content)
        assert (found.strip(b" ") if found else None) == (character_set or None)


def test_text_in_sequences_survives_byte_for_byte() -> None:
    source = header(SpecificCharacterSet="GB18030")
    item = Dataset()
    item.RequestedProcedureID = "RP1"
    source.RequestAttributesSequence = [with_raw(item, {"RequestedProcedureDescription": "胸部正位".encode("gb18030")})]
    capture, *reports = results(source)
    expected = "胸部正位".encode("gb18030")
    assert raw_value(capture.RequestAttributesSequence[0], "RequestedProcedureDescription") == expected
    for report in reports:
        request = report.ReferencedRequestSequence[0]
        assert raw_value(request, "RequestedProcedureDescription") == expected


def test_text_that_the_reader_decoded_is_encoded_again() -> None:
    source = named(b"GB18030", "张^三".encode("gb18030"))
    assert str(source.PatientName) == "张^三"
    assert source.StudyDescription == "张^三"
    for result in results(source):
        assert raw_value(result, "PatientName") == "张^三".encode("gb18030") + b" "
        assert raw_value(result, "StudyDescription").strip() == "张^三".encode("gb18030")


MALFORMED = {
    "PatientBirthDate": [b"1960.01.01", b"19601399", b"unknown", b"1960"],
    "PatientSex": [b"U", b"female", b"\xc5\xae"],
    "StudyDate": [b"20260230", b"\0\0\0\0"],
    "StudyTime": [b"25:00", b"99", b"10:15:00"],
    "PatientAge": [b"65", b"065J"],
}


@pytest.mark.parametrize(
    ("keyword", "value"), [(keyword, value) for keyword, values in MALFORMED.items() for value in values]
)
def test_malformed_values_are_not_passed_on(keyword: str, value: bytes) -> None:
    for result in results(header(raw={keyword: value})):
        assert not result.get(keyword)


ODD_HEADERS = {
    "nothing but UIDs": dict.fromkeys(
        [
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "PatientAge",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "StudyDescription",
            "ReferringPhysicianName",
            "Manufacturer",
            "ManufacturerModelName",
            "Modality",
            "ViewPosition",
            "PatientOrientation",
            "ImagerPixelSpacing",
            "Rows",
            "Columns",
            "SeriesInstanceUID",
            "RequestAttributesSequence",
        ]
    ),
    "empty orientation": {"PatientOrientation": ""},
    "one orientation": {"PatientOrientation": "L"},
    "no view, no orientation": {"PatientOrientation": None, "ViewPosition": None},
    "empty spacing": {"ImagerPixelSpacing": None},
    "empty manufacturer": {"Manufacturer": ""},
    "zero rows": {"Rows": 0},
    "no requests": {"RequestAttributesSequence": []},
    "empty request": {"RequestAttributesSequence": [Dataset()]},
}


@pytest.mark.parametrize("changes", ODD_HEADERS.values(), ids=ODD_HEADERS.keys())
def test_missing_attributes_never_stop_a_result(changes: dict[str, object]) -> None:
    for result in results(header(**changes)):
        assert result.StudyInstanceUID == "2.25.222"
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            assert keyword in result, "type 2: present, if need be empty"


def test_each_single_attribute_may_be_missing() -> None:
    needed = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"}
    for element in header():
        if element.keyword not in needed:
            results(header(**{element.keyword: None}))


def test_damaged_sequence_is_left_out() -> None:
    source = header()
    with_raw(source, {"RequestAttributesSequence": b"\xfe\xff\x00\xe0\xff\x00\x00\x00garbage"})
    for result in results(source):
        assert "RequestAttributesSequence" not in result


_KEYWORDS = [element.keyword for element in header() if not element.keyword.endswith("UID")]


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from([*_KEYWORDS, "SpecificCharacterSet", "LossyImageCompression", "IssuerOfPatientID"]),
        st.binary(max_size=90),
        max_size=6,
    )
)
def test_no_bytes_in_a_header_stop_a_report(raw: dict[str, bytes]) -> None:
    source = with_raw(header(), raw)
    study = conclusion(film_not_analysed(source), decision=Decision.NOT_ANALYSED)
    for each in build_reports(study, ()):
        result = opened(each)
        assert result.StudyInstanceUID == "2.25.222"
        assert result.SeriesDescription == "AI CXR triage: NOT ANALYSED"
        if "PatientName" in raw:
            padded = raw["PatientName"] + b" " * (len(raw["PatientName"]) % 2)
            assert (result.get_item(Tag("PatientName")).value or b"") == padded
