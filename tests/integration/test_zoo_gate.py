"""Every file of the DICOM zoo through scan, gate and decoder, compared with what was decided for it.

Outcomes: "unreadable" (no DICOM file: our sender skips it, a peer cannot send it), "not offered" (its
transfer syntax is not accepted), "refused: …" (C-STORE failure), "not analysed: …" (stored, no decision),
"prepared" (goes to the network).

The cases that the zoo marks `policy:` and those that it calls "accept" and we do not take:

* test4 (BodyPartExamined RIBCAGE) and test5 (Modality CT) hold the same chest film as test1 under the same
  SOP Instance UID. A header that contradicts the picture is not corrected: no decision.
* deflated and big endian copies of chest films: these transfer syntaxes are not accepted at all, so the
  sender has to convert; it always can, since implicit VR little endian is mandatory (PS3.5 10.1).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble

from clearfilm.dicom.codecs import accepted_transfer_syntaxes
from clearfilm.dicom.header import parse, scan
from clearfilm.errors import NotAnalysable, RefusedObject
from worker.decoder import DecoderPool
from worker.gate import judge_header, judge_pixels

OUTCOMES = {}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(2, timeout_seconds=20, memory_megabytes=2048, edge=224) as pool:
        yield pool


def outcome(path: Path, pool: DecoderPool) -> str:
    try:
        data, transfer_syntax = read_data_set(path)
    except (InvalidDicomError, AttributeError, OSError):
        return "unreadable"
    if transfer_syntax not in accepted_transfer_syntaxes():
        return "not offered"
    try:
        scanned = scan(data, transfer_syntax)
        judge_header(parse(data[: scanned.header_bytes], transfer_syntax))
        judge_pixels(pool.submit(path).result(timeout=60))
    except RefusedObject as error:
        return f"refused: {error.reason}"
    except NotAnalysable as error:
        return f"not analysed: {error.reason}"
    return "prepared"


def read_data_set(path: Path) -> tuple[memoryview, str]:
    with path.open("rb") as stream:
        read_preamble(stream, force=False)
        transfer_syntax = _read_file_meta_info(stream).TransferSyntaxUID
        return memoryview(stream.read()), transfer_syntax


def test_every_file_of_the_zoo_ends_as_decided(shared: Path, pool: DecoderPool) -> None:
    folder = shared / "data" / "dicom-zoo"
    found = {path.name: outcome(path, pool) for path in sorted((folder / "files").iterdir())}
    assert found == OUTCOMES


def test_only_adult_frontal_chest_films_of_the_zoo_are_prepared(shared: Path, pool: DecoderPool) -> None:
    folder = shared / "data" / "dicom-zoo"
    with (folder / "zoo.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    prepared = {row["file"] for row in rows if outcome(folder / row["file"], pool) == "prepared"}
    syntaxes = accepted_transfer_syntaxes()
    wanted = {r["file"] for r in rows if r["expected"] == "accept" and r["transfer_syntax"] in syntaxes}
    assert prepared == wanted
