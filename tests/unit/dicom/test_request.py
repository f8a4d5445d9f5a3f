"""What the header tells of the request, in every character set and however damaged."""

from pydicom import Dataset

from clearfilm.dicom.request import MAXIMUM_TEXT, request_of
from tests.result_factories import header, reread, with_raw


def test_texts_are_sorted_by_what_they_tell() -> None:
    found = request_of(
        header(
            CurrentPatientLocation="Ward 3",
            RequestingService="Surgery",
            ProtocolName="Chest mobile",
            AdditionalPatientHistory="cough",
            PatientComments="fell\r\nyesterday",
        )
    )
    assert found.location == "Ward 3\nSurgery"
    assert found.descriptions == "Chest PA\nChest mobile\nXR chest"
    assert found.reasons == "cough\nfell yesterday"


def test_chinese_in_an_item_has_the_character_set_of_the_film() -> None:
    item = Dataset()
    item.ReasonForTheRequestedProcedure = "咯血三天"
    ds = reread(header(SpecificCharacterSet="GB18030", RequestAttributesSequence=[item]))
    assert request_of(ds).reasons == "咯血三天"


def test_chinese_without_a_declared_character_set_is_read() -> None:
    item = with_raw(Dataset(), {"ReasonForTheRequestedProcedure": "咯血三天".encode("gb18030")})
    assert request_of(header(RequestAttributesSequence=[item])).reasons == "咯血三天"


def test_damage_hides_nothing_else() -> None:
    ds = with_raw(header(ReasonForStudy="trauma"), {"RequestAttributesSequence": b"\xfe\xff\x00"})
    assert request_of(ds).reasons == "trauma"
    assert request_of(Dataset()).reasons == ""


def test_texts_are_cut_at_their_longest() -> None:
    assert len(request_of(header(PatientComments="a" * 9000)).reasons) == MAXIMUM_TEXT
