"""Cohorts from folders."""

import csv
from dataclasses import replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfilm.errors import TrainingError
from tests.cohort_factories import KEY, NoDecoder, patients_of, picture, small_cohort, write_table
from training.cohort import EXCLUDED, FILMS, Candidate, Cohort, Film, Selection, build, films_digest, load, read_folder
from training.export import TABLE, export
from training.films import prepare_picture

Row = list[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    films = tmp_path / "films"
    films.mkdir()
    for number in range(8):
        cv2.imwrite(str(films / f"{number}.png"), picture(abnormal=bool(number % 2), seed=number))
    return films


def read(folder: Path, rows: list[Row], **options: str) -> Selection:
    return read_folder(folder, write_table(folder, rows), NoDecoder(), **options)  # type: ignore[arg-type]


def row(number: int, **values: str) -> Row:
    fields = {
        "file": f"{number}.png",
        "patient": f"P{number}",
        "label": "normal",
        "view": "PA",
        "sex": "F",
        "age": "40",
    }
    return list({**fields, **values}.values())


def built(selection: Selection, folder: Path) -> Cohort:
    return build(selection, folder.parent / "cohort", root=folder, source="folder", key=KEY)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"file": "none.png"}, "the file is missing"),
        ({"file": "../outside.png"}, "the file is missing"),
        ({"patient": ""}, "no patient ID"),
        ({"label": "unsure"}, "the label is neither normal nor abnormal"),
        ({"view": "LATERAL"}, "not a frontal view"),
        ({"age": "17"}, "patient under 18"),
        ({"age": "006M"}, "patient under 18"),
        ({"age": "017Y"}, "patient under 18"),
        ({"age": "5 months"}, "the age is neither a number of years nor of the form 018Y"),
        ({"file": "0.png\0"}, "the file is missing"),
    ],
)
def test_unfit_rows_are_left_out_with_their_reason(folder: Path, values: dict[str, str], reason: str) -> None:
    cv2.imwrite(str(folder.parent / "outside.png"), picture(abnormal=False, seed=1))
    selection = read(folder, [row(0), row(1, **values)])
    assert [candidate.identity for candidate in selection.candidates] == ["P0"]
    assert [found for _, found in selection.excluded] == [reason]


@pytest.mark.parametrize("written", ["2024-03-01", "2024/03/01", "2024.03.01", "20240301"])
def test_dates_are_read_however_they_are_separated(folder: Path, written: str) -> None:
    table = dated_table(folder, written)
    assert [one.film.date for one in read_folder(folder, table, NoDecoder()).candidates] == ["20240301"]


@pytest.mark.parametrize("written", ["01.03.2024", "2024", "2024-13-01", "March"])
def test_a_date_that_could_be_misread_leaves_the_film_out(folder: Path, written: str) -> None:
    selection = read_folder(folder, dated_table(folder, written), NoDecoder())
    assert selection.excluded == [("0.png", "the date is not of the form 2026-03-01")]


def dated_table(folder: Path, written: str) -> Path:
    table = folder / "dated.csv"
    table.write_text(f"file,patient_id,label,date\n0.png,P0,normal,{written}\n")
    return table


def test_spellings_of_one_patient_id_are_one_patient(tmp_path: Path) -> None:
    spellings = ["ab 1", "AB 1", "ab  1", "ＡＢ 1", "Ab\t1"]
    cohort = build(
        candidates([(name, "") for name in spellings]), tmp_path / "c", root=tmp_path, source="folder", key=KEY
    )
    assert len({film.patient for film in cohort.films}) == len({film.part for film in cohort.films}) == 1


def test_unknown_age_follows_the_configuration(folder: Path) -> None:
    assert len(read(folder, [row(0, age="")]).candidates) == 1
    refused = read(folder, [row(0, age="")], unknown_age="refuse")
    assert [reason for _, reason in refused.excluded] == ["the patient's age is not stated"]


def test_films_that_do_not_decode_are_counted(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "2.png"), np.full((90, 90), 7, np.uint8))
    cohort = built(read(folder, [row(0), row(1), row(2)]), folder)
    assert cohort.manifest.excluded == {"the file is not a picture": 1, "pixel values are constant": 1}


def test_same_film_with_two_labels_is_left_out_altogether(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    cohort = built(read(folder, [row(0), row(1, patient="P0", label="abnormal"), row(2)]), folder)
    assert [film.file for film in cohort.films] == ["2.png"]
    assert cohort.manifest.excluded == {"the same film with two labels": 2}


def test_same_film_under_two_patients_is_left_out(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    cohort = built(read(folder, [row(0), row(1), row(2)]), folder)
    assert cohort.manifest.excluded == {"the same film under two patients": 2}


def test_copy_of_a_film_counts_once(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    cohort = built(read(folder, [row(0), row(1, patient="P0")]), folder)
    assert cohort.manifest.excluded == {"a copy of another film": 1}


def test_nothing_left_is_an_error_with_counts(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"no film is left of 2: 2 patient under 18"):
        built(read(folder, [row(0, age="3"), row(1, age="4")]), folder)


def test_table_without_a_column_is_refused(folder: Path) -> None:
    (folder / "films.csv").write_text("file,label\n0.png,normal\n")
    with pytest.raises(TrainingError, match="patient_id"):
        read_folder(folder, folder / "films.csv", NoDecoder())


def test_cohort_holds_no_patient_id(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    assert patients_of("train", 1)[0] not in "".join(film.patient for film in cohort.films)


def test_order_does_not_change_the_digest_but_a_label_does(tmp_path: Path) -> None:
    films = small_cohort(tmp_path).films
    assert films_digest(films) == films_digest(films[::-1])
    assert films_digest([replace(films[0], label="abnormal"), *films[1:]]) != films_digest(
        [replace(films[0], label="normal"), *films[1:]]
    )


def test_same_key_gives_the_same_cohort(tmp_path: Path) -> None:
    assert small_cohort(tmp_path / "a").digest == small_cohort(tmp_path / "b").digest


def test_altered_cohort_is_refused(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    table = cohort.folder / FILMS
    table.write_text(table.read_text().replace(",test,", ",train,"))
    with pytest.raises(TrainingError, match="altered"):
        load(cohort.folder)


def test_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    selection = read_folder(tmp_path / "films", tmp_path / "films" / "films.csv", NoDecoder())
    with pytest.raises(TrainingError, match="exists"):
        build(selection, cohort.folder, root=tmp_path / "films", source="folder", key=KEY)


def candidates(films: list[tuple[str, str]]) -> Selection:
    """Films of (patient, date)."""
    records = [
        Candidate(
            Film(file=str(place), sha256=f"{place:064}", patient="", label="normal", part="train", date=day), patient
        )
        for place, (patient, day) in enumerate(films)
    ]
    return Selection(records, [])


def test_paper_split_lets_patients_into_several_parts_and_says_so(tmp_path: Path) -> None:
    selection = candidates([("one", "")] * 60)
    cohort = build(selection, tmp_path / "paper", root=tmp_path, source="folder", key=KEY, scheme="paper")
    assert cohort.manifest.shared_patients == 1
    assert {film.part for film in cohort.films} == {"train", "stop", "calibrate", "test"}


def test_temporal_test_has_new_patients_only(tmp_path: Path) -> None:
    known, fresh, tested = patients_of("train", 2)[0], patients_of("train", 2)[1], patients_of("test", 1)[0]
    films = [(known, "20200101"), (known, "20240101"), (fresh, "20240101"), (tested, "20200101"), (tested, "20240301")]
    cohort = build(
        candidates(films), tmp_path / "c", root=tmp_path, source="folder", key=KEY, temporal_from=date(2024, 1, 1)
    )
    assert [(film.file, film.part) for film in cohort.films] == [("0", "train"), ("2", "temporal"), ("3", "test")]
    assert sum(cohort.manifest.excluded.values()) == 2
    with (cohort.folder / EXCLUDED).open() as stream:
        assert sorted(line["file"] for line in csv.DictReader(stream)) == ["1", "4"]


def test_export_tells_nothing_but_pixels_and_an_allow_list(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    done = export(cohort, tmp_path / "out", NoDecoder(), KEY)
    assert done.films == len(cohort.films)
    text = (tmp_path / "out" / TABLE).read_text()
    for film in cohort.films:
        assert film.patient not in text
        assert film.sha256 not in text
    with (tmp_path / "out" / TABLE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0].keys() == {"file", "patient_id", "label", "part", "view", "sex", "age", "tags"}
    assert sorted(row["label"] for row in rows) == sorted(film.label for film in cohort.films)


def test_exported_cohort_can_be_built_again_with_the_same_pixels(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    export(cohort, tmp_path / "out", NoDecoder(), KEY)
    again = read_folder(tmp_path / "out", tmp_path / "out" / TABLE, NoDecoder())
    assert len(again.candidates) == len(cohort.films)

    def pictures(folder: Path, names: list[str]) -> set[bytes]:
        return {prepare_picture(folder / name, 64).network_input.tobytes() for name in names}

    assert pictures(cohort.root, [film.file for film in cohort.films]) == pictures(
        tmp_path / "out", [candidate.film.file for candidate in again.candidates]
    )
