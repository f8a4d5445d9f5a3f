"""The gate: which stored films may get a decision at all.

An adult frontal chest radiograph has to be recognised by its header; whatever else arrives ends as
"not analysed: <reason>". Header texts can veto a film, and a contradiction is a veto. Whether the picture
itself looks like a chest film is asked later, by the network's features.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable
from datetime import date
from typing import Final, Literal

import numpy as np
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from clearfilm.dicom.header import FilmHeader, is_own_result
from clearfilm.dicom.pixels import PreparedFilm
from clearfilm.errors import NotAnalysable

ADULT_AGE_YEARS: Final = 18
# Older than any patient: anonymised birth dates of 1800 or 1900.
OLDEST_AGE_YEARS: Final = 120
# Below this, four digits are no year: 01022020 and the like.
EARLIEST_YEAR: Final = 1700
SMALLEST_EDGE_PIXELS: Final = 256
LARGEST_EDGE_PIXELS: Final = 10_000
# NIH's films as they were taken: width / height 0.76 to 1.36.
ASPECT_RANGE: Final = (0.6, 1.7)
# 1,755 chest films of the development set: at most 0.66 of a film within six neighbouring grey levels
# (a child's film in a black frame), at most 0.35 for adults.
EMPTY_SHARE: Final = 0.8
_EMPTY_LEVELS = 6

_SOP_CLASSES = {
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
}
_CHEST = ("CHEST", "THORA", "TORAX", "LUNG", "CXR", "HEART", "胸", "肺")
# Beside CHEST these mean another part, or a film of more than the chest.
_OTHER_PARTS = (
    "RIB",
    "COSTA",
    "ABD",
    "PELV",
    "SPINE",
    "CSPINE",
    "TSPINE",
    "LSPINE",
    "NECK",
    "SHOULDER",
    "CLAV",
    "STERN",
    "BREAST",
    "MAMM",
    "SCAP",
    "HUMER",
    "SKULL",
    "HEAD",
    "HIP",
    "KNEE",
    "HAND",
    "WRIST",
    "ELBOW",
    "ANKLE",
    "FOOT",
    "EXTREM",
    "AIRWAY",
    "BABYGRAM",
    "腹",
    "肋",
    "颈",
    "椎",
    "肩",
    "锁骨",
    "胸骨",
    "骨盆",
    "膝",
    "手",
    "足",
)
_OTHER_PICTURES = ("PHANTOM", "SCOUT", "TOPOGRAM", "LOCALIZER", "SUPPRESS", "TOMOSYN", "SUBTRACT", "体模")
_CHILD = ("PEDI", "PAED", "CHILD", "INFANT", "NEONAT", "NEWBORN", "BABY", "小儿", "儿童", "婴", "新生儿")
_HUMAN = ("HOMO", "HUMAN")
_HUMAN_CODES = {"337915000", "L-85003"}

_FRONTAL_WORDS = {
    "PA",
    "AP",
    "POSTEROANTERIOR",
    "ANTEROPOSTERIOR",
    "FRONTAL",
    "PORTABLE",
    "BEDSIDE",
    "DV",
    "正位",
    "后前位",
    "前后位",
    "床旁",
}
_OTHER_VIEW_WORDS = {
    "LAT",
    "LATERAL",
    "LATERALE",
    "LL",
    "RL",
    "LLAT",
    "RLAT",
    "LLD",
    "RLD",
    "LAO",
    "RAO",
    "LPO",
    "RPO",
    "OBL",
    "OBLIQUE",
    "OBLIQUES",
    "AXIAL",
    "XTABLE",
    "SWIMMERS",
    "DECUB",
    "DECUBITUS",
    "LORDOTIC",
    "APICAL",
    "COSTAL",
    "侧位",
    "斜位",
    "卧位侧",
}
# What View Position may say beside the projection.
_VIEW_MODIFIERS = {
    "X",
    "WISE",
    "CHEST",
    "THORAX",
    "VIEW",
    "ERECT",
    "UPRIGHT",
    "STANDING",
    "SUPINE",
    "SITTING",
    "SEMI",
    "SEMIERECT",
    "HORIZONTAL",
    "VERTICAL",
    "MOBILE",
    "PORT",
    "GRID",
    "INSPIRATION",
    "EXPIRATION",
    "1",
}
# SNOMED CT and SRT codes of CID 4010 and 4009.
_FRONTAL_CODES = {
    "272479007",
    "399348003",
    "399033003",
    "R-10214",
    "R-40888",
    "R-10206",
    "R-10202",
}
_CHEST_CODES = {"816094009", "51185008", "39607008", "43799004", "T-D3000", "T-28000"}

_AGE = re.compile(r"(\d{1,3}) *([DWMY]?)", re.ASCII)
_UNREADABLE_AGE = "the patient's age cannot be read"
# Writers put dots or dashes between the parts, leave parts out, or add a time.
_DATE = re.compile(r"(\d{4})\D?(\d{2})?\D?(\d{2})?", re.ASCII)
_DAYS_PER_UNIT = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25, "": 365.25}
_PLAIN = re.compile(r"[A-Z0-9 _/-]{1,24}", re.ASCII)

View = Literal["frontal", "other", "unclear"]


def judge_header(
    header: FilmHeader,
    *,
    today: date,
    unknown_age: Literal["analyse", "refuse"] = "analyse",
    unknown_view: Literal["analyse", "refuse"] = "refuse",
) -> None:
    """Pass a film that says of itself that it is an adult frontal chest radiograph.

    Parameters
    ----------
    header : FilmHeader
        As received.
    today : datetime.date
        A patient was no older on the film than now, whatever its dates say.
    unknown_age : {"analyse", "refuse"}
        What to do if neither age nor birth date is stated.
    unknown_view : {"analyse", "refuse"}
        What to do if no attribute names the projection.

    Raises
    ------
    NotAnalysable
        Otherwise, with the reason.
    """
    _judge_kind(header)
    _judge_patient(header, today, unknown_age)
    _judge_body_part(header)
    _judge_view(header, unknown_view)


def judge_pixels(film: PreparedFilm) -> None:
    """Pass a film whose picture has the size and the contents of a radiograph.

    Parameters
    ----------
    film : PreparedFilm
        As the decoder made it.

    Raises
    ------
    NotAnalysable
        If it is too small or too large, of an unlikely shape, constant or mostly empty.
    """
    rows, columns = film.facts.rows, film.facts.columns
    if min(rows, columns) < SMALLEST_EDGE_PIXELS or max(rows, columns) > LARGEST_EDGE_PIXELS:
        raise NotAnalysable(f"implausible size, {columns} x {rows} pixels")
    height, width = film.display.shape
    if not ASPECT_RANGE[0] <= width / height <= ASPECT_RANGE[1]:
        raise NotAnalysable(f"implausible shape, {columns} x {rows} pixels")
    if film.display.min() == film.display.max():
        raise NotAnalysable("pixel values are constant")
    shares = np.bincount(film.display.ravel(), minlength=256) / film.display.size
    fullest = np.convolve(shares, np.ones(_EMPTY_LEVELS)).max()
    if fullest > EMPTY_SHARE or film.facts.padding_share > EMPTY_SHARE:
        raise NotAnalysable("the picture is mostly empty")


def youngest_age(header: FilmHeader, *, today: date) -> float | None:
    """The patient's age in years, the lower one of the stated age and what the dates allow.

    Returns
    -------
    float or None
        None: neither is stated.

    Raises
    ------
    NotAnalysable
        If one of them cannot be read.
    """
    ages = [age for age in (_stated_age(header), _age_by_dates(header, today)) if age is not None]
    return min(ages, default=None)


def _judge_kind(header: FilmHeader) -> None:
    if is_own_result(header):
        raise NotAnalysable("own result")
    for_processing = header.presentation_intent_type.upper() == "FOR PROCESSING"
    if for_processing or header.sop_class_uid == DigitalXRayImageStorageForProcessing:
        raise NotAnalysable("For Processing image")
    if header.sop_class_uid not in _SOP_CLASSES:
        raise NotAnalysable("not a radiograph")
    if header.modality not in ("CR", "DX"):
        raise NotAnalysable(_quoting("modality", header.modality))
    if header.number_of_frames not in (None, 1):
        raise NotAnalysable("multi-frame image")
    photometric = header.photometric_interpretation
    if header.samples_per_pixel not in (None, 1) or (photometric and not photometric.startswith("MONO")):
        raise NotAnalysable("colour image")
    if header.quality_control_image.upper() == "YES" or _has(_image_texts(header), _OTHER_PICTURES):
        raise NotAnalysable("test or derived image")


def _judge_patient(header: FilmHeader, today: date, unknown_age: str) -> None:
    species = header.patient_species.upper()
    foreign = species and not _has([species], _HUMAN)
    foreign_code = header.patient_species_codes and not _HUMAN_CODES & set(header.patient_species_codes)
    if foreign or foreign_code or header.patient_breed:
        raise NotAnalysable("not a human patient")
    age = youngest_age(header, today=today)
    if age is not None and age < ADULT_AGE_YEARS:
        raise NotAnalysable("patient under 18")
    if _has([*_image_texts(header), header.study_description.upper()], _CHILD):
        raise NotAnalysable("paediatric examination")
    if age is None and unknown_age == "refuse":
        raise NotAnalysable("the patient's age is not stated")


def _judge_body_part(header: FilmHeader) -> None:
    body_part = header.body_part_examined.upper()
    # Terms of one word occur here: CHESTABDOMEN, TSPINE.
    other = any(stem in body_part for stem in _OTHER_PARTS)
    if body_part and (other or not any(stem in body_part for stem in _CHEST)):
        raise NotAnalysable(_quoting("body part", body_part))
    if header.anatomic_region_codes and not _CHEST_CODES & set(header.anatomic_region_codes):
        raise NotAnalysable("body part is not the chest")
    texts = _image_texts(header)
    if _has(texts, _OTHER_PARTS):
        raise NotAnalysable("the description names another body part")
    study = [] if _has([header.study_description.upper()], _OTHER_PARTS) else [header.study_description.upper()]
    if not (body_part or header.anatomic_region_codes or _has([*texts, *study], _CHEST)):
        raise NotAnalysable("body part is not stated")


def _judge_view(header: FilmHeader, unknown_view: str) -> None:
    stated = [_view_position(header), _view_codes(header), _orientation(header)]
    described = _described_view(header)
    if "other" in stated:
        if header.view_position and stated[0] == "other":
            raise NotAnalysable(_quoting("view", header.view_position.upper()))
        raise NotAnalysable("not a frontal view")
    if described == "other":
        raise NotAnalysable("the description names another view")
    # A series "PA and lateral" holds both: then only the image's own attributes can tell.
    if "frontal" in stated[:2] or described == "frontal":
        return
    if described == "unclear" and _words(_image_texts(header)) & _OTHER_VIEW_WORDS:
        raise NotAnalysable("the description names several views")
    if "frontal" not in stated and unknown_view == "refuse":
        raise NotAnalysable("the view is not stated")


def _view_position(header: FilmHeader) -> View:
    """View Position (0018,5101); some writers use Patient Position (0018,5100) for it."""
    value = header.view_position or header.patient_position
    words = _words([value.upper()])
    if not words:
        return "unclear"
    if words & _FRONTAL_WORDS and words <= _FRONTAL_WORDS | _VIEW_MODIFIERS:
        return "frontal"
    if words == {"POSTERO", "ANTERIOR"} or words == {"ANTERO", "POSTERIOR"}:
        return "frontal"
    # Patient Position also holds what it was made for: HFS, SUPINE and the like say nothing of the view.
    return "other" if header.view_position or words & _OTHER_VIEW_WORDS else "unclear"


def _view_codes(header: FilmHeader) -> View:
    if not header.view_codes:
        return "unclear"
    return "frontal" if set(header.view_codes) <= _FRONTAL_CODES else "other"


def _orientation(header: FilmHeader) -> View:
    """PS3.3 C.7.6.1.1.1: rows of an upright frontal film run to the left or right, columns to the feet."""
    if len(header.patient_orientation) != 2 or not all(header.patient_orientation):
        return "unclear"
    row, column = (direction[0].upper() for direction in header.patient_orientation)
    return "frontal" if row in "LR" and column == "F" else "other"


def _described_view(header: FilmHeader) -> View:
    words = _words(_image_texts(header))
    frontal, other = words & _FRONTAL_WORDS, words & _OTHER_VIEW_WORDS
    if bool(frontal) == bool(other):
        return "unclear"
    return "frontal" if frontal else "other"


def _image_texts(header: FilmHeader) -> list[str]:
    """Texts about this image or its series; those about the study may tell of its other films."""
    texts = (
        header.series_description,
        header.protocol_name,
        header.performed_procedure_step_description,
        *header.image_type,
    )
    return [text.upper() for text in texts if text]


def _words(texts: Iterable[str]) -> set[str]:
    """Words of upper-case texts; Chinese has no spaces, so its terms are searched for."""
    # One term for "frontal and lateral".
    joined = " ".join(texts).replace("正侧位", "正位侧位")
    chinese = {term for term in _FRONTAL_WORDS | _OTHER_VIEW_WORDS if not term.isascii() and term in joined}
    return set(re.findall(r"[A-Z]+|[0-9]+", joined)) | chinese


def _has(texts: Iterable[str], stems: Iterable[str]) -> bool:
    """Whether a word of upper-case texts begins with one of the stems; Chinese stems match anywhere."""
    joined = " ".join(texts)
    words = re.findall(r"[A-Z]+", joined)
    return any(stem in joined if not stem.isascii() else any(word.startswith(stem) for word in words) for stem in stems)


def _stated_age(header: FilmHeader) -> float | None:
    """Patient's Age (0010,1010) in years; a number without a unit is taken for years."""
    text = header.patient_age.strip().upper()
    if not text:
        return None
    match = _AGE.fullmatch(text)
    if match is None:
        raise NotAnalysable(_UNREADABLE_AGE)
    years = int(match[1]) * _DAYS_PER_UNIT[match[2]] / _DAYS_PER_UNIT["Y"]
    return years if years <= OLDEST_AGE_YEARS else None


def _age_by_dates(header: FilmHeader, today: date) -> float | None:
    """The youngest plausible age; a wrong date of the film must not make a child an adult."""
    text = header.patient_birth_date.strip()
    if not text.strip("0"):
        return None
    births = _date_range(text)
    if births is None:
        raise NotAnalysable(_UNREADABLE_AGE)
    films = map(_date_range, (header.study_date, header.acquisition_date, header.content_date))
    taken = [today, *(dates[0] for dates in films if dates is not None)]
    ages = [_youngest(births, day) for day in taken]
    if max(ages) < 0:
        raise NotAnalysable(_UNREADABLE_AGE)
    return min((float(age) for age in ages if 0 <= age <= OLDEST_AGE_YEARS), default=None)


def _youngest(births: tuple[date, date], day: date) -> int:
    """Whole years on a day, of somebody born within a range; negative if the day is before all of it."""
    latest = min(births[1], max(births[0], day))
    return day.year - latest.year - ((day.month, day.day) < (latest.month, latest.day))


def _date_range(text: str) -> tuple[date, date] | None:
    """Earliest and latest reading of a date whose month or day may be missing or 00; None if unreadable."""
    match = _DATE.match(text.strip())
    if match is None or int(match[1]) < EARLIEST_YEAR:
        return None
    year, month, day = (int(part or 0) for part in match.groups())
    if not month:
        return date(year, 1, 1), date(year, 12, 31)
    try:
        last_day = monthrange(year, month)[1]
        return date(year, month, day or 1), date(year, month, day or last_day)
    except ValueError:
        return None


def _quoting(name: str, value: str) -> str:
    """Header text goes into a reason only if it is a plain term."""
    if not value:
        return f"{name} is not stated"
    return f"{name} {value}" if _PLAIN.fullmatch(value) else f"{name} is not supported"
