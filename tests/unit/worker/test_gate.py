"""Which films may get a decision."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from clearfilm.dicom.header import FilmHeader, is_own_result
from clearfilm.dicom.pixels import FilmFacts, PreparedFilm
from clearfilm.errors import NotAnalysable
from worker.gate import judge_header, judge_pixels

TODAY = date(2026, 9, 1)
FILM = FilmHeader(
    sop_class_uid=ComputedRadiographyImageStorage,
    modality="CR",
    body_part_examined="CHEST",
    view_position="PA",
    patient_age="054Y",
    samples_per_pixel=1,
    photometric_interpretation="MONOCHROME2",
)


def film(**changes: Any) -> FilmHeader:
    return replace(FILM, **changes)


def reason(header: FilmHeader, **options: Any) -> str:
    with pytest.raises(NotAnalysable) as caught:
        judge_header(header, today=TODAY, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"view_position": "AP"},
        {"view_position": "POSTERO_ANTERIOR"},
        {"view_position": "AP_HORIZONTAL"},
        {"view_position": "PA/AP ERECT"},
        {"view_position": "PA X-WISE"},
        {"view_position": "", "patient_position": "PA"},
        {"view_position": "", "view_codes": ("272479007",)},
        {"view_position": "", "view_codes": ("R-10206",)},
        {"view_position": "", "patient_orientation": ("L", "F")},
        {"view_position": "", "series_description": "Chest PA"},
        {"view_position": "", "series_description": "Thorax portable"},
        {"view_position": "", "series_description": "胸部正位"},
        {"view_position": "", "protocol_name": "胸部后前位"},
        {"series_description": "Chest PA and lateral"},
        {"series_description": "胸部正侧位"},
        {"study_description": "XR CHEST PA AND LAT"},
        {"study_description": "XR CHEST AND LEFT HAND"},
        {"patient_orientation": ("R", "F")},
        {"patient_orientation": ("L", "")},
        {"body_part_examined": "PORT CHEST"},
        {"body_part_examined": "", "series_description": "CHEST AP"},
        {"body_part_examined": "", "study_description": "胸片"},
        {"body_part_examined": "", "anatomic_region_codes": ("51185008",)},
        {"sop_class_uid": SecondaryCaptureImageStorage, "modality": "DX"},
        {"patient_age": "018Y"},
        {"patient_age": "81"},
        {"patient_age": "", "patient_birth_date": "19400305", "study_date": "20040826"},
        {"patient_age": "", "patient_birth_date": "18000101", "study_date": "20080504"},
        {"patient_age": "", "patient_birth_date": "00000000"},
        {"patient_age": "", "patient_birth_date": "1960"},
        {"patient_age": "", "patient_birth_date": "2007", "study_date": "20260101"},
        {"patient_age": "", "patient_birth_date": "20660305", "study_date": "21240826"},
        {"patient_age": ""},
        {"presentation_intent_type": "FOR PRESENTATION"},
        {"burned_in_annotation": "YES"},
        {"image_type": ("DERIVED", "PRIMARY", "POST_PROCESSED")},
        {"patient_species": "Homo sapiens"},
    ],
)
def test_adult_frontal_chest_films_pass(changes: dict[str, Any]) -> None:
    judge_header(film(**changes), today=TODAY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modality": "CT"}, "modality CT"),
        ({"modality": ""}, "modality is not stated"),
        ({"modality": "<script>"}, "modality is not supported"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, "not a radiograph"),
        ({"presentation_intent_type": "FOR PROCESSING"}, "For Processing image"),
        ({"sop_class_uid": DigitalXRayImageStorageForProcessing}, "For Processing image"),
        ({"number_of_frames": 2}, "multi-frame image"),
        ({"samples_per_pixel": 3}, "colour image"),
        ({"photometric_interpretation": "PALETTE COLOR"}, "colour image"),
        ({"quality_control_image": "YES"}, "test or derived image"),
        ({"series_description": "Chest PA bone suppressed"}, "test or derived image"),
        ({"protocol_name": "Chest phantom"}, "test or derived image"),
        ({"patient_age": "017Y"}, "patient under 18"),
        ({"patient_age": "200M"}, "patient under 18"),
        ({"patient_age": "012D"}, "patient under 18"),
        ({"patient_age": "9"}, "patient under 18"),
        ({"patient_birth_date": "20080902", "study_date": "20260901"}, "patient under 18"),
        ({"patient_birth_date": "2015.01.01", "study_date": "", "content_date": "20260901"}, "patient under 18"),
        ({"series_description": "Chest AP neonatal"}, "paediatric examination"),
        ({"study_description": "小儿胸片"}, "paediatric examination"),
        ({"patient_species": "Canis lupus familiaris"}, "not a human patient"),
        ({"patient_breed": "Beagle"}, "not a human patient"),
        ({"patient_species_codes": ("L-80700",)}, "not a human patient"),
        ({"body_part_examined": "KNEE"}, "body part KNEE"),
        ({"body_part_examined": "RIBCAGE"}, "body part RIBCAGE"),
        ({"body_part_examined": "TSPINE"}, "body part TSPINE"),
        ({"body_part_examined": "CHESTABDOMEN"}, "body part CHESTABDOMEN"),
        ({"body_part_examined": "腹部"}, "body part is not supported"),
        ({"anatomic_region_codes": ("T-D0300",)}, "body part is not the chest"),
        ({"series_description": "Ribs AP"}, "the description names another body part"),
        ({"protocol_name": "Chest/Abdomen AP"}, "the description names another body part"),
        ({"series_description": "肩关节正位"}, "the description names another body part"),
        ({"body_part_examined": "", "study_description": "MODALITYLUT - TEETH"}, "body part is not stated"),
        ({"body_part_examined": "", "study_description": "Chest and abdomen"}, "body part is not stated"),
        ({"view_position": "LATERAL"}, "view LATERAL"),
        ({"view_position": "LL"}, "view LL"),
        ({"view_position": "AP LLD"}, "view AP LLD"),
        ({"view_position": "AP AXIAL"}, "view AP AXIAL"),
        ({"view_position": "L5 S1"}, "view L5 S1"),
        ({"view_position": "swimmers"}, "view SWIMMERS"),
        ({"view_position": "RAO"}, "view RAO"),
        ({"view_position": "YES"}, "view YES"),
        ({"view_position": "", "patient_position": "LATERAL"}, "not a frontal view"),
        ({"view_position": "", "view_codes": ("399067008",)}, "not a frontal view"),
        ({"view_codes": ("399173006",)}, "not a frontal view"),
        ({"view_position": "", "patient_orientation": ("A", "F")}, "not a frontal view"),
        ({"patient_orientation": ("P", "F"), "view_position": ""}, "not a frontal view"),
        ({"patient_orientation": ("F", "L"), "view_position": ""}, "not a frontal view"),
        ({"series_description": "Chest LAT"}, "the description names another view"),
        ({"series_description": "胸部侧位"}, "the description names another view"),
        ({"series_description": "胸部斜位"}, "the description names another view"),
        ({"view_position": "", "series_description": "Chest PA and lateral"}, "the description names several views"),
        ({"view_position": ""}, "the view is not stated"),
        ({"view_position": "", "study_description": "Chest PA"}, "the view is not stated"),
        ({"view_position": "", "patient_position": "HFS"}, "the view is not stated"),
        ({"series_description": "AI CXR triage: SIGNIFICANT FINDING"}, "own result"),
    ],
)
def test_whatever_else_gets_a_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(film(**changes)) == expected


@pytest.mark.parametrize("age", ["6 months", "05YR", "8 years", "8岁", "5y6m", "3.5Y", "24MTH", "-8Y", "unknown"])
def test_age_that_cannot_be_read_is_refused(age: str) -> None:
    assert reason(film(patient_age=age)) == "the patient's age cannot be read"
    assert reason(film(patient_age=age, patient_birth_date="19600101")) == "the patient's age cannot be read"


@pytest.mark.parametrize("birth", ["01022020", "02/01/2020", "20201301", "20200231", "born in May", "20300101"])
def test_birth_date_that_cannot_be_read_is_refused(birth: str) -> None:
    assert reason(film(patient_age="", patient_birth_date=birth)) == "the patient's age cannot be read"


@pytest.mark.parametrize(
    "birth", ["2026", "202001", "20200000", "2020-01-01", "2020-01-01 12:00", "2020年01月01日", "2008"]
)
@pytest.mark.parametrize("taken", ["", "19000101", "20990101", "2026", "unknown"])
def test_children_are_known_by_any_reading_of_their_birth_date(birth: str, taken: str) -> None:
    child = film(patient_age="", patient_birth_date=birth, study_date=taken)
    assert reason(child) == "patient under 18"


def test_every_date_of_the_film_counts() -> None:
    child = film(patient_age="", patient_birth_date="19900101", study_date="20250101", acquisition_date="20040826")
    assert reason(child) == "patient under 18"


def test_an_empty_header_is_refused() -> None:
    reason(FilmHeader())


def test_unknown_age_follows_the_configuration() -> None:
    unknown = film(patient_age="", patient_birth_date="18000101")
    judge_header(unknown, today=TODAY, unknown_age="analyse")
    assert reason(unknown, unknown_age="refuse") == "the patient's age is not stated"


def test_unknown_view_follows_the_configuration() -> None:
    unknown = film(view_position="")
    judge_header(unknown, today=TODAY, unknown_view="analyse")
    assert reason(film(view_position="LAT"), unknown_view="analyse") == "view LAT"


def test_own_results_are_known() -> None:
    assert is_own_result(film(series_description="AI CXR triage: NOT ANALYSED"))
    assert not is_own_result(FILM)


def prepared(display: NDArray[np.uint8], rows: int = 2000, columns: int = 2000, padding: float = 0) -> PreparedFilm:
    facts = FilmFacts(rows, columns, 12, "native", False, "window", padding, "")
    return PreparedFilm(display, np.zeros((224, 224), np.uint8), facts)


def picture(rows: int = 600, columns: int = 600) -> NDArray[np.uint8]:
    return np.tile((np.arange(columns) * 255 // columns).astype(np.uint8), (rows, 1))


def framed(share: float) -> NDArray[np.uint8]:
    film = picture()
    film[: round(600 * share)] = 0
    return film


@pytest.mark.parametrize(
    "film", [prepared(picture()), prepared(picture(600, 1000)), prepared(framed(0.6)), prepared(picture(), 440, 440)]
)
def test_pictures_of_plausible_size_and_contents_pass(film: PreparedFilm) -> None:
    judge_pixels(film)


@pytest.mark.parametrize(
    ("film", "expected"),
    [
        (prepared(picture(), 169, 211), "implausible size, 211 x 169 pixels"),
        (prepared(picture(), 20000, 12000), "implausible size"),
        (prepared(picture(600, 200)), "implausible shape"),
        (prepared(np.full((600, 600), 9, np.uint8)), "pixel values are constant"),
        (prepared(framed(0.85)), "mostly empty"),
        (prepared(255 - framed(0.85)), "mostly empty"),
        (prepared(picture(), padding=0.9), "mostly empty"),
    ],
)
def test_other_pictures_get_a_reason(film: PreparedFilm, expected: str) -> None:
    with pytest.raises(NotAnalysable, match=expected):
        judge_pixels(film)
