"""The age of a patient at the examination, for reading and for lists; the gate of the worker has stricter rules."""

import re
from datetime import date

_AGE = re.compile(r"(\d{1,3})\s*([DWMY])")
_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
OLDEST_YEARS = 130.0


def age_years(patient_age: str | None, birth_date: str | None, study_date: str | None) -> float | None:
    """Age in years.

    Parameters
    ----------
    patient_age : str or None
        (0010,1010) AS, such as ``045Y``.
    birth_date, study_date : str or None
        DA as received; used where the age is missing.

    Returns
    -------
    float or None
        0 to 130; None if it is not told, or makes no sense.
    """
    stated = _AGE.fullmatch((patient_age or "").strip().upper())
    if stated:
        years = int(stated[1]) * _DAYS[stated[2]] / _DAYS["Y"]
    else:
        born, taken = _day(birth_date), _day(study_date)
        if born is None or taken is None:
            return None
        years = _whole_years(born, taken) if (taken - born).days >= 730 else (taken - born).days / _DAYS["Y"]
    return round(years, 3) if 0 <= years <= OLDEST_YEARS else None


def _whole_years(born: date, taken: date) -> float:
    return float(taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day)))


def _day(text: str | None) -> date | None:
    match = _DATE.match((text or "").strip())
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
