"""Two pictures of one exposure: the raw one does not count beside the one that is made for people."""

from pydicom import Dataset

from worker.results.model import Film

# Equal in both pictures of one exposure.
ACQUISITION = ("AcquisitionDate", "AcquisitionTime", "ViewPosition")
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


def without_raw_twins(films: tuple[Film, ...]) -> tuple[Film, ...]:
    """Leave out each For Processing film whose For Presentation twin is there: the twin is what was read.

    Twins are known by Source Image Sequence of the one for people, or by the same acquisition of the same view.
    """
    shown = [film.source for film in films if film.source.get("SOPClassUID") == DX_FOR_PRESENTATION]
    named = {uid for source in shown for uid in _source_images(source)}
    acquisitions = [_acquisition(source) for source in shown]
    kept: list[Film] = []
    for film in films:
        is_raw = film.source.get("SOPClassUID") == DX_FOR_PROCESSING
        if is_raw and str(film.source.get("SOPInstanceUID")) in named:
            continue
        acquisition = _acquisition(film.source)
        if is_raw and all(acquisition) and acquisition in acquisitions:
            acquisitions.remove(acquisition)  # one twin each
            continue
        kept.append(film)
    return tuple(kept)


def _source_images(source: Dataset) -> list[str]:
    try:
        return [str(item.ReferencedSOPInstanceUID) for item in source.get("SourceImageSequence") or ()]
    except Exception:  # noqa: BLE001 - pydicom decodes at access and raises whatever the bytes lead it to
        return []


def _acquisition(source: Dataset) -> tuple[str, ...]:
    try:
        return tuple(str(source.get(keyword) or "") for keyword in ACQUISITION)
    except Exception:  # noqa: BLE001 - as above
        return ("",)
