"""Films to send, made anew for each test so that no two tests share a UID."""

import secrets
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def sample(name_part: str) -> Path:
    """The sample film whose file name contains this."""
    found = sorted(path for path in SAMPLES.rglob("*.dcm") if name_part in path.name)
    assert found, f"no sample is called like {name_part}"
    return found[0]


def fresh_film(folder: Path, source: Path, **attributes: object) -> tuple[Path, str]:
    """A copy in a study of its own (or with the given attributes); its path and Study Instance UID."""
    film = pydicom.dcmread(source)
    film.StudyInstanceUID = generate_uid()
    film.SeriesInstanceUID = generate_uid()
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword, value in attributes.items():
        setattr(film, keyword, value)
    path = folder / f"{secrets.token_hex(8)}.dcm"
    film.save_as(path)
    return path, str(film.StudyInstanceUID)
