"""Secondary Capture objects."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from clearfilm.triage import Decision
from tests.result_factories import (
    NODE,
    conclusion,
    dx_header,
    film,
    film_above,
    film_not_analysed,
    header,
    opened,
)
from worker.results.model import Kind
from worker.results.overlay import draw
from worker.results.secondary_capture import build_secondary_captures

POSITIVE = Decision.SIGNIFICANT_FINDING


def capture_of(*films, **changes):
    (built,) = build_secondary_captures(conclusion(*films, decision=POSITIVE, **changes))
    return opened(built)


def test_attributes_are_those_of_the_conformance_statement() -> None:
    ds = capture_of(film_above())
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == SecondaryCaptureImageStorage
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("OT", 901, 1)
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert ds.ConversionType == "WSD"
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("YES", "NO")
    assert ds.LossyImageCompression == "00"
    code = ds.DerivationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("130403", "DCM")
    origin = ds.SourceImageSequence[0]
    assert origin.ReferencedSOPInstanceUID == "2.25.111"
    assert origin.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert origin.SpatialLocationsPreserved == "NO"
    assert ds.BodyPartExamined == "CHEST"
    assert list(ds.PatientOrientation) == ["L", "F"]
    assert "not for diagnosis" in ds.SeriesDescription
    assert "Not for diagnostic use" in ds.ImageComments
    assert ds.SecondaryCaptureDeviceManufacturerModelName == "Clearfilm ResNet152"
    assert "1.0.0" in ds.SecondaryCaptureDeviceSoftwareVersions
    assert ds.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in ds.ContributingEquipmentSequence] == [
        "109101",
        "109102",
    ]
    for absent in ("PixelSpacing", "ImagerPixelSpacing", "Laterality", "WindowCenter", "ImageLaterality"):
        assert absent not in ds


def test_pixels_are_the_picture() -> None:
    study = conclusion(film_above(), decision=POSITIVE)
    (built,) = build_secondary_captures(study)
    assert np.array_equal(opened(built).pixel_array, draw(study, 0))


def test_odd_number_of_pixel_bytes_is_padded() -> None:
    display = np.zeros((1023, 769), np.uint8)
    ds = capture_of(film(display=display))
    assert len(ds.PixelData) % 2 == 0
    assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)


def test_only_analysed_films_get_a_capture() -> None:
    films = (film_above(), film_not_analysed(), film(dx_header(), "b" * 64))
    built = build_secondary_captures(conclusion(*films, decision=POSITIVE))
    assert [each.source_digest for each in built] == ["a" * 64, "b" * 64]
    assert [opened(each).InstanceNumber for each in built] == [1, 3]
    assert len({each.series_instance_uid for each in built}) == 1
    assert len({each.sop_instance_uid for each in built}) == 2
    assert build_secondary_captures(conclusion(film_not_analysed(), decision=Decision.NOT_ANALYSED)) == ()


def test_same_conclusion_gives_the_same_bytes() -> None:
    study = conclusion(film_above(), decision=POSITIVE)
    assert build_secondary_captures(study) == build_secondary_captures(study)


def test_next_revision_has_other_uids() -> None:
    first = capture_of(film_above())
    second = capture_of(film_above(), revision=2)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_time_is_the_local_time_of_the_conclusion() -> None:
    ds = capture_of(film_above())
    for keyword in ("InstanceCreation", "Content", "Series"):
        assert (ds[f"{keyword}Date"].value, ds[f"{keyword}Time"].value) == ("20260102", "101630.250000")
    assert ds.ContributingEquipmentSequence[1].ContributionDateTime == "20260102101630.250000+0800"


def test_film_that_was_ever_lossy_makes_a_lossy_capture() -> None:
    stated = header(
        LossyImageCompression="01", LossyImageCompressionRatio=12, LossyImageCompressionMethod="ISO_10918_1"
    )
    ds = capture_of(film_above(stated))
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12)
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"
    silent = header()
    silent.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert capture_of(film_above(silent)).LossyImageCompression == "01"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"PatientOrientation": ["R", "F"]}, ["R", "F"]),
        ({"PatientOrientation": None}, ["L", "F"]),
        ({"PatientOrientation": "", "ViewPosition": "AP"}, ["L", "F"]),
        ({"PatientOrientation": "L", "ViewPosition": None}, None),
        ({"PatientOrientation": None, "ViewPosition": "LL"}, None),
    ],
)
def test_orientation_is_stated_or_follows_from_a_frontal_view(changes, expected) -> None:
    ds = capture_of(film_above(header(**changes)))
    assert "PatientOrientation" in ds
    assert (list(ds.PatientOrientation) if ds.PatientOrientation else None) == expected


def test_our_own_text_is_ascii_whatever_the_configuration_says() -> None:
    node = replace(NODE, institution_name="协和医院", manufacturer="M" * 80)
    ds = capture_of(film_above(), node=node)
    assert "InstitutionName" not in ds
    assert ds.Manufacturer == "M" * 64


def test_kind_is_secondary_capture() -> None:
    (built,) = build_secondary_captures(conclusion(film_above(), decision=POSITIVE))
    assert built.kind is Kind.SECONDARY_CAPTURE
    assert built.content[:132] == bytes(128) + b"DICM"
