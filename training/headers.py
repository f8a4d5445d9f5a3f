"""What a DICOM film's header tells about it, as columns of a cohort."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

from pydicom import dcmread

from clearfilm.dicom import header
from clearfilm.dicom.header import FilmHeader
from clearfilm.errors import NotAnalysable


def read_facts(path: Path) -> dict[str, str]:
    """View, sex, age, date, device and site; empty where nothing is stated.

    Parameters
    ----------
    path : pathlib.Path
        A DICOM file with file meta information that the gate has passed.

    Returns
    -------
    dict of str to str
        Values of the columns of that name of `training.cohort.Film`.

    Raises
    ------
    NotAnalysable
        If the file cannot be read.
    """
    try:
        stated = header.from_dataset(dcmread(path, stop_before_pixels=True))
    except Exception as error:
        # pydicom raises exceptions of ten kinds on damaged files.
        raise NotAnalysable(f"the file cannot be read ({type(error).__name__})") from error
    age = _age(stated)
    return {
        "view": stated.view_position.upper()[:16],
        "sex": stated.patient_sex.upper()[:1],
        "age": "" if age is None else str(age),
        "date": stated.study_date.replace(".", "")[:8],
        "device": " ".join(filter(None, (stated.manufacturer, stated.manufacturer_model_name))),
        "site": stated.institution_name,
    }


def _age(stated: FilmHeader) -> int | None:
    """Whole years; the gate refuses children, so other units than years do not come."""
    digits = stated.patient_age.upper().removesuffix("Y")
    if digits.isascii() and digits.isdigit():
        return int(digits)
    birth, taken = _day(stated.patient_birth_date), _day(stated.study_date)
    if birth is None or taken is None or taken < birth:
        return None
    return math.floor((taken - birth).days / 365.2425)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text.replace(".", "")[:8])
    except ValueError:
        return None
