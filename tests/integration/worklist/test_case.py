"""The page of a case: films without loss, the map, verdicts, and what a reader sees and does."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, select, update

from clearfilm.config import Config, Destination
from clearfilm.policy.rules import Level
from clearfilm.policy.stages import Stage
from clearfilm.triage import Decision
from clearfilm.vision.contours import surface_of
from db import accounts, audit, schema, verdicts
from db.accounts import Role
from db.models import (
    Analysis,
    Audit,
    Instance,
    Job,
    JobKind,
    Reading,
    Report,
    ReportSource,
    ReportStatus,
    Study,
    StudyPlacement,
)
from db.session import Database
from tests.accessibility import assert_accessible
from tests.integration.worklist.conftest import PASSWORD, Site, enter, form_token, seed_users, serving
from tests.integration.worklist.films import SAMPLES, Archive, hill
from worklist import passwords

HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}\u202e%(x)s{y}"
# One film for each transfer syntax, bit depth and photometric interpretation among the samples.
SYNTAXES = [
    "01-cr-chinese",
    "02-cr-latin",
    "03-dx-table",
    "04-dx-inverse",
    "05-cr-stat",
    "08-cr-portable",
    "09-dx-cardiomegaly",
    "10-cr-pneumothorax",
    "14-cr-square-grid",
    "17-dx-for-processing",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose node sends to a PACS, with users."""
    destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
    folder = tmp_path_factory.mktemp("case")
    config = Config(data_folder=folder, destinations=(destination,), study={"quiet_seconds": 0})  # type: ignore[arg-type]
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        with serving(config, database) as server:
            site = Site(server, config, database)
            yield site
            site.close()


@pytest.fixture(scope="module")
def archive(site: Site) -> Archive:
    made = Archive(site.database, site.config)
    made.activate_model()
    return made


@pytest.fixture(scope="module")
def finding(archive: Archive) -> tuple[int, int]:
    """Study and film with a significant finding; nobody judges it."""
    return archive.add("08-cr-portable.dcm", 0.9, PatientID="SAME", PatientBirthDate="19600101")


def fields(page: str) -> dict[str, str]:
    """Hidden fields of the form with the two keys."""
    form = page.split("verdict-keys", 1)[1].split("</form>")[0]
    return dict(re.findall(r'name="(revision|seen|token)" value="([^"]*)"', form))


def judge(client: httpx2.Client, study_id: int, says: str, **more: str) -> httpx2.Response:
    page = client.get(f"/studies/{study_id}").text
    return client.post(f"/studies/{study_id}/verdict", data={**fields(page), "says": says, **more})


def standing(site: Site, study_id: int) -> list[tuple[str, bool, bool]]:
    with site.database.read() as session:
        study = session.get_one(Study, study_id)
        given = verdicts.standing(session, study_id, study.revision)
        return [(one.user, one.agrees, one.corrects) for one in given]


@pytest.mark.parametrize("name", SYNTAXES)
def test_film_arrives_without_any_loss(archive: Archive, as_reader: httpx2.Client, name: str) -> None:
    source = SAMPLES / f"{name}.dcm"
    study_id, film_id = archive.receive(source)
    answer = as_reader.get(f"/studies/{study_id}/films/{film_id}")
    assert answer.status_code == 200
    facts: dict[str, Any] = httpx2.Response(200, content=answer.headers["x-film"]).json()
    ds = pydicom.dcmread(source)
    expected = ds.pixel_array
    unsigned = np.dtype(f"<u{facts['allocated'] // 8}")
    stored = np.frombuffer(answer.content, unsigned, offset=2 << facts["bits"]).reshape(expected.shape)
    assert np.array_equal(stored, expected.view(unsigned))
    assert (facts["rows"], facts["columns"], facts["photometric"]) == (
        ds.Rows,
        ds.Columns,
        ds.PhotometricInterpretation,
    )


def test_film_is_packed_for_other_machines_only(site: Site, finding: tuple[int, int]) -> None:
    client = site.client(Role.READER)
    answer = client.get("/studies/{}/films/{}".format(*finding), headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("damage", "status", "words"), [("gone", 410, "not in the store"), ("cut", 422, "cannot be shown")]
)
def test_film_that_cannot_be_shown_says_why(
    archive: Archive, as_reader: httpx2.Client, damage: str, status: int, words: str
) -> None:
    study_id, film_id = archive.receive(SAMPLES / "07-dx-effusion.dcm")
    with archive.database.read() as session:
        path = archive.config.data_folder / session.get_one(Instance, film_id).path
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20_000])
    answer = as_reader.get(f"/studies/{study_id}/films/{film_id}", headers={"accept": "application/json"})
    assert answer.status_code == status
    assert words in answer.json()["title"]


def test_film_of_another_study_is_not_found(as_reader: httpx2.Client, finding: tuple[int, int]) -> None:
    assert as_reader.get(f"/studies/{finding[0] + 1000}/films/{finding[1]}").status_code == 404


def test_map_comes_on_the_scale_of_the_results(as_reader: httpx2.Client, finding: tuple[int, int]) -> None:
    found = as_reader.get("/studies/{}/films/{}/map".format(*finding)).json()
    assert np.allclose(np.reshape(found["evidence"], (found["rows"], found["columns"])), hill(), atol=1e-4)
    assert (found["threshold"], found["span"], found["wash"], found["words"]) == (2.0, 8.0, 0.2, None)
    assert found["centre"] == 1 / 64


@pytest.mark.parametrize(("score", "peak", "words"), [(0.1, 9.0, "below the operating point"), (0.9, 1.0, "No region")])
def test_nothing_is_drawn_where_there_is_no_evidence(
    archive: Archive, as_reader: httpx2.Client, score: float, peak: float, words: str
) -> None:
    study_id, film_id = archive.receive(SAMPLES / "06-cr-mass.dcm")
    archive.read(film_id, score, hill(peak))
    archive.conclude(study_id)
    found = as_reader.get(f"/studies/{study_id}/films/{film_id}/map").json()
    assert found["evidence"] == []
    assert words in found["words"]


def test_damaged_map_is_said_in_words(archive: Archive, as_reader: httpx2.Client) -> None:
    study_id, film_id = archive.add("06-cr-mass.dcm", 0.9)
    with archive.database.read() as session:
        path = session.scalars(select(Analysis.map_path).where(Analysis.instance_id == film_id)).one()
    assert path
    (archive.config.data_folder / path).write_bytes(b"PK")
    answer = as_reader.get(f"/studies/{study_id}/films/{film_id}/map", headers={"accept": "application/json"})
    assert answer.status_code == 410
    assert "cannot be read" in answer.json()["title"]


def test_page_says_answer_number_model_priors_and_way(
    archive: Archive, as_reader: httpx2.Client, finding: tuple[int, int]
) -> None:
    other, _ = archive.add("02-cr-latin.dcm", 0.1, PatientID="SAME", PatientBirthDate="19600101")
    page = as_reader.get(f"/studies/{finding[0]}").text
    for words in (
        "significant finding",
        "0.90",
        "Test model",
        "test data",
        "Not for diagnostic use",
        f'href="/studies/{other}"',
        "XR_ROOM1",
        "Answer 1: significant finding",
        "picture with map",
    ):
        assert words in page
    assert "normal" not in re.sub(r"<[^>]*>", "", page).replace("abnormal", "")


def test_opening_a_case_is_recorded(site: Site, archive: Archive, as_radiologist: httpx2.Client) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.9)
    as_radiologist.get(f"/studies/{study_id}")
    with site.database.read() as session:
        assert session.get_one(Study, study_id).reading is Reading.OPENED
        events = session.scalars(select(Audit.actor).where(Audit.study_id == study_id, Audit.event == "case shown"))
        assert events.all() == ["radiologist"]


def test_a_verdict_sent_twice_counts_once_and_leads_back(
    site: Site, archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.9)
    form = {**fields(as_radiologist.get(f"/studies/{study_id}").text), "says": "disagree"}
    answers = [as_radiologist.post(f"/studies/{study_id}/verdict", data=form) for _ in range(2)]
    assert [answer.headers["location"] for answer in answers] == [f"/studies/{study_id}"] * 2
    with site.database.read() as session:
        assert len(verdicts.history(session, study_id)) == 1
    assert standing(site, study_id) == [("radiologist", False, False)]


def test_reader_may_not_judge(archive: Archive, as_reader: httpx2.Client, finding: tuple[int, int]) -> None:
    assert "verdict-keys" not in as_reader.get(f"/studies/{finding[0]}").text
    form = {"revision": 1, "token": "x" * 32, "says": "agree"}
    assert as_reader.post(f"/studies/{finding[0]}/verdict", data=form).status_code == 403


def test_verdict_about_an_answer_that_has_changed_is_refused_in_words(
    archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    form = {**fields(as_radiologist.get(f"/studies/{study_id}").text), "says": "agree"}
    _, late = archive.receive(SAMPLES / "07-dx-effusion.dcm", study_uid=archive.study(study_id).study_instance_uid)
    archive.read(late, 0.9)
    archive.conclude(study_id, 2)
    answer = as_radiologist.post(f"/studies/{study_id}/verdict", data=form)
    assert answer.status_code == 409
    assert "has changed meanwhile" in answer.text


def test_correction_is_made_by_the_worker_and_shown(
    site: Site, archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    judge(as_radiologist, study_id, "disagree", corrects="true", comment=HOSTILE)
    assert "about to be made" in as_radiologist.get(f"/studies/{study_id}").text
    with site.database.begin() as session:
        now = site.database.now(session)
        session.execute(update(Job).where(Job.kind == JobKind.CONCLUDE).values(run_after=now))
    archive.conclude(study_id, 2)
    assert archive.study(study_id).decision is Decision.SIGNIFICANT_FINDING
    page = as_radiologist.get(f"/studies/{study_id}").text
    assert "Corrected by radiologist" in page
    assert "<script>alert" not in page


def test_correction_is_called_off(site: Site, archive: Archive, as_radiologist: httpx2.Client) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    judge(as_radiologist, study_id, "disagree", corrects="true")
    assert as_radiologist.post(f"/studies/{study_id}/verdict/undo", data={"revision": 1}).status_code == 303
    assert standing(site, study_id) == []
    with site.database.read() as session:
        open_jobs = select(Job.id).where(Job.study_id == study_id, Job.kind == JobKind.CONCLUDE, Job.state == "queued")
        assert session.scalars(open_jobs).all() == []


def test_withheld_answer_is_nowhere_until_the_reader_has_said_what_they_see(
    site: Site, archive: Archive, as_radiologist: httpx2.Client, as_reader: httpx2.Client
) -> None:
    study_id, film_id = archive.add("06-cr-mass.dcm", 0.1, PatientID="ALONE")
    with site.database.begin() as session:
        session.execute(update(Study).where(Study.id == study_id).values(withheld=True))
    for client in (as_radiologist, as_reader):
        page = client.get(f"/studies/{study_id}").text
        assert "no answer yet" in page
        assert "not shown" not in page
        assert not re.search(r"no significant finding|0\.10|Answer 1|picture with map", page)
        assert client.get(f"/studies/{study_id}/films/{film_id}/map").status_code == 403
    assert judge(as_radiologist, study_id, "agree").status_code == 409
    form = {**fields(as_radiologist.get(f"/studies/{study_id}").text), "says": "finding"}
    for _ in range(2):  # clicked twice
        assert as_radiologist.post(f"/studies/{study_id}/verdict", data=form).status_code == 303
    assert "Answer 1: no significant finding" in as_radiologist.get(f"/studies/{study_id}").text
    assert "no answer yet" in as_reader.get(f"/studies/{study_id}").text
    with site.database.read() as session:
        (given,) = verdicts.history(session, study_id)
    assert (given.blind, given.agrees, given.finding) == (True, False, True)


def blind_and_open(archive: Archive) -> tuple[int, int]:
    """A study of the blind share, and one like it whose answer has not come."""
    blind, blind_film = archive.add("06-cr-mass.dcm", 0.1, PatientID="BLIND", AccessionNumber="B1")
    waiting, open_film = archive.receive(SAMPLES / "06-cr-mass.dcm", PatientID="BLIND", AccessionNumber="B1")
    archive.read(open_film, 0.1)
    numbers, films = (blind, waiting), (blind_film, open_film)
    with archive.database.begin() as session:
        session.execute(update(Study).where(Study.id == blind).values(withheld=True))
        placed = update(StudyPlacement).where(StudyPlacement.study_id == blind)
        session.execute(placed.values(withheld=True, blind=True, shown=False))
        at = session.scalars(select(Study.last_received_at).where(Study.id == blind)).one()
        same = {"first_received_at": at, "last_received_at": at}
        session.execute(update(Study).where(Study.id.in_(numbers)).values(same))
        session.execute(update(Instance).where(Instance.id.in_(films)).values(received_at=at))
        session.execute(update(Analysis).where(Analysis.instance_id.in_(films)).values(created_at=at))
    return numbers


def views_of(client: httpx2.Client, archive: Archive, study_id: int) -> dict[str, str]:
    """All that a reader gets of a study, without the numbers, tokens and times that differ between any two."""
    with archive.database.read() as session:
        film = session.scalars(select(Instance.id).where(Instance.study_id == study_id)).one()
        uid = session.get_one(Study, study_id).study_instance_uid
    case = f"/studies/{study_id}"
    in_list = f"/worklist/studies/{study_id}"
    paths = {
        "page": case,
        "panel": f"{case}/panel",
        "film": f"{case}/films/{film}",
        "map": f"{case}/films/{film}/map",
        "details": f"{in_list}/details",
        "thumbnail": f"{in_list}/pictures/thumbnail/{film}",
        "capture": f"{in_list}/pictures/capture/{film}",
        "unread": f"/worklist/changes?ids={study_id}",
        "row": f"/worklist/changes?ids={study_id}&q=BLIND",
    }
    paths |= {
        f"row {query}": f"/worklist/changes?ids={study_id}&q=BLIND&{query}"
        for query in ("state=open", "state=concluded", "finding=none", "finding=no_significant_finding")
    }
    answers = {name: client.get(path, headers={"accept": "application/json"}) for name, path in paths.items()}
    found = {
        name: f"{answer.status_code} {answer.headers.get('x-film')} {answer.text}" for name, answer in answers.items()
    }
    found["csv"] = next(line for line in client.get("/worklist.csv?q=BLIND").text.splitlines() if uid in line)
    for says in ("agree", "disagree"):
        form = {"revision": 1, "seen": film, "token": f"{says}-{study_id:020}", "says": says}
        found[says] = str(client.post(f"{case}/verdict", data=form).status_code)
    for revision in (0, 1, 2):
        found[f"undo {revision}"] = str(client.post(f"{case}/verdict/undo", data={"revision": revision}).status_code)
    return {name: _alike(text.replace(uid, "UID")) for name, text in found.items()}


def _alike(text: str) -> str:
    numbered = r'(studies/|films/|thumbnail/|film/|data-(?:id|study|film|after)="|name="(?:seen|token)" value=")[\w-]+'
    text = re.sub(numbered, r"\1N", text)
    text = re.sub(r'(data-order="[^"]*) \d+"', r"\1 N", text)
    return re.sub(r'"(after|reference|detail)": ?"[^"]*"|<time.*?</time>', "", text)


def test_a_study_of_the_blind_share_looks_like_one_whose_answer_has_not_come(
    site: Site, archive: Archive, as_radiologist: httpx2.Client, as_reader: httpx2.Client
) -> None:
    blind, waiting = blind_and_open(archive)
    for client in (as_radiologist, as_reader):
        of_blind, of_open = (views_of(client, archive, number) for number in (blind, waiting))
        assert of_blind == of_open
        assert "no answer yet" in of_blind["page"]
    for number in (blind, waiting):
        assert "What do you see?" in as_radiologist.get(f"/studies/{number}").text
        assert judge(as_radiologist, number, "finding").status_code == 303
    of_blind, of_open = (views_of(as_reader, archive, number) for number in (blind, waiting))
    assert of_blind == of_open  # nor does a colleague's verdict tell others
    assert "judged" in of_blind["row"]
    with site.database.read() as session:
        for number in (blind, waiting):
            (given,) = verdicts.history(session, number)
            assert (given.blind, given.finding) == (True, True)


def test_what_was_seen_before_the_answer_is_compared_with_it(
    site: Site, archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, film = archive.receive(SAMPLES / "06-cr-mass.dcm")
    page = as_radiologist.get(f"/studies/{study_id}").text
    assert judge(as_radiologist, study_id, "finding").status_code == 303
    assert "Kept." in as_radiologist.get(f"/studies/{study_id}").text
    archive.read(film, 0.1)
    archive.conclude(study_id)
    assert standing(site, study_id) == [("radiologist", False, False)]
    page = as_radiologist.get(f"/studies/{study_id}").text
    assert "You disagree." in page
    assert "radiologist saw a significant finding" in page


def test_a_verdict_about_films_of_which_one_was_not_shown_is_refused(
    archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, _ = archive.receive(SAMPLES / "06-cr-mass.dcm")
    form = {**fields(as_radiologist.get(f"/studies/{study_id}").text), "says": "clear"}
    archive.receive(SAMPLES / "07-dx-effusion.dcm", study_uid=archive.study(study_id).study_instance_uid)
    answer = as_radiologist.post(f"/studies/{study_id}/verdict", data=form)
    assert answer.status_code == 409
    assert "A film has come meanwhile" in answer.text


def test_a_study_that_is_back_from_its_longest_wait_is_not_said_to_be_read_later(
    site: Site, archive: Archive, as_reader: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    now = archive.study(study_id).last_received_at

    def shows(level: Level, days: int = 1) -> bool:
        with site.database.begin() as session:
            placed = update(StudyPlacement).where(StudyPlacement.study_id == study_id)
            over = [{"rule": "maximum-wait", "words": "has waited for the longest time"}]
            values = {"level": level, "shown": True, "tagged": True, "stage": Stage.ACTIVE}
            reasons = over if level is Level.USUAL else []
            session.execute(placed.values(**values, returns_at=now + timedelta(days=days), reasons=reasons))
        return "may be read later" in as_reader.get(f"/studies/{study_id}").text

    assert shows(Level.LATER)
    assert not shows(Level.LATER, days=-1)  # the schedule has not been there yet
    assert not shows(Level.USUAL)


def test_whoever_corrected_the_answer_is_not_asked_to_agree_with_it(
    site: Site, archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    judge(as_radiologist, study_id, "disagree", corrects="true")
    with site.database.begin() as session:
        now = site.database.now(session)
        session.execute(update(Job).where(Job.kind == JobKind.CONCLUDE).values(run_after=now))
    archive.conclude(study_id, 2)
    page = as_radiologist.get(f"/studies/{study_id}").text
    assert "You corrected this answer." in page
    assert 'value="agree"' not in page
    answer = judge(as_radiologist, study_id, "agree")
    assert answer.status_code == 409
    assert "your own correction" in answer.text
    assert judge(as_radiologist, study_id, "disagree").status_code == 303  # everybody errs
    other = second_radiologist(site)
    assert 'value="agree"' in other.get(f"/studies/{study_id}").text


def second_radiologist(site: Site) -> httpx2.Client:
    """Another one, logged in."""
    with site.database.begin() as session:
        if accounts.user(session, "second") is None:
            password_hash = passwords.hash_password(PASSWORD, name="second")
            now = site.database.now(session)
            accounts.add_user(session, "second", Role.RADIOLOGIST, password_hash, now=now)
    client = site.client()
    data = {"name": "second", "password": PASSWORD, "form_token": form_token(client.get("/login").text)}
    assert client.post("/login", data=data).status_code == 303
    client.headers["x-form-token"] = form_token(client.get("/settings").text)
    return client


def test_readers_who_contradict_each_other_are_marked_in_case_and_list(
    site: Site, archive: Archive, as_radiologist: httpx2.Client, as_reader: httpx2.Client
) -> None:
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1, PatientID="TWICE")
    other = second_radiologist(site)

    def marks() -> list[int]:
        paths = (f"/studies/{study_id}", "/worklist?q=TWICE", "/worklist.csv?q=TWICE")
        return [as_reader.get(path).text.count("readers disagree") for path in paths]

    judge(as_radiologist, study_id, "agree")
    assert marks() == [0, 0, 0]
    judge(other, study_id, "disagree")
    assert marks() == [1, 1, 1]
    other.post(f"/studies/{study_id}/verdict/undo", data={"revision": 1})
    assert marks() == [0, 0, 0]


def test_earlier_reports_without_films_are_shown_beside_the_priors(
    site: Site, archive: Archive, as_reader: httpx2.Client
) -> None:
    with site.database.begin() as session:
        now = site.database.now(session)
        for number, label in (("OLD1", "finding"), ("OLD2", None), ("OWN", "no_finding")):
            values = {"findings": "x", "impression": "x", "language": "en", "received_at": now, "patient_id": "REP1"}
            told = datetime(2024, 3, 1, 12, tzinfo=UTC)
            values |= {"digest": number, "accession_number": number, "label": label, "reported_at": told}
            session.add(Report(source=ReportSource.CSV, status=ReportStatus.FINAL, **values))
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1, PatientID="REP1", AccessionNumber="OWN")
    page = as_reader.get(f"/studies/{study_id}").text
    found = page.split('id="prior-reports"')[1].split("</ul>")[0]
    for words in ("OLD1", "report with a finding", "OLD2", "no label yet", "2024-03-01", "no films here"):
        assert words in found
    assert "OWN" not in found
    assert "None under this Patient ID" not in page


def test_study_that_was_deleted_meanwhile_is_said_in_words(
    site: Site, archive: Archive, as_radiologist: httpx2.Client
) -> None:
    study_id, film_id = archive.receive(SAMPLES / "06-cr-mass.dcm")
    with site.database.begin() as session:
        session.execute(delete(Study).where(Study.id == study_id))
    for path in ("", "/panel", f"/films/{film_id}", f"/films/{film_id}/map"):
        assert as_radiologist.get(f"/studies/{study_id}{path}").status_code == 404
    answer = as_radiologist.post(f"/studies/{study_id}/verdict/undo", data={"revision": 0})
    assert answer.status_code == 404
    assert "deleted" in answer.text


def open_case(page: Page, study_id: int) -> None:
    page.goto(f"/studies/{study_id}")
    page.locator("canvas#film[data-state=ready]").wait_for()


def pixels(page: Page) -> list[int]:
    """Greys along the middle row of the canvas, and one colour channel more."""
    found: list[int] = page.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
            const canvas = document.getElementById("film");
            done([...canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data]);
        })))"""
    )
    return found


@pytest.mark.parametrize("withheld", [False, True])
def test_case_opens_on_the_film_that_decided(browser_page: Page, site: Site, archive: Archive, withheld: bool) -> None:
    """Without an answer it opens on the first one, and tells of none that it is the worst."""
    page = browser_page
    study_id, first = archive.receive(SAMPLES / "06-cr-mass.dcm")
    uid = archive.study(study_id).study_instance_uid
    _, second = archive.receive(SAMPLES / "10-cr-pneumothorax.dcm", study_uid=uid)
    archive.read(first, 0.31)
    archive.read(second, 0.71)
    archive.conclude(study_id)
    if withheld:
        with site.database.begin() as session:
            session.execute(update(Study).where(Study.id == study_id).values(withheld=True))
    enter(page, Role.READER)
    open_case(page, study_id)
    expect(page.locator("[aria-current=true][data-film]")).to_have_text("Film 1" if withheld else "Film 2")
    marked = page.locator("#p-films li").filter(has_text="decided the answer")
    expect(marked).to_have_count(0 if withheld else 1)
    if not withheld:
        expect(marked).to_contain_text("Film 2")


def test_answers_that_were_replaced_leave_room_for_the_names_of_destinations(
    browser_page: Page, archive: Archive
) -> None:
    page = browser_page
    study_id, _ = archive.add("06-cr-mass.dcm", 0.1)
    _, late = archive.receive(SAMPLES / "06-cr-mass.dcm", study_uid=archive.study(study_id).study_instance_uid)
    archive.read(late, 0.9)
    archive.conclude(study_id, 2)
    enter(page, Role.READER)
    open_case(page, study_id)
    expect(page.locator(".sent")).to_contain_text("a newer answer replaced it")
    names = page.locator(".sent td:first-child")
    cut = names.evaluate_all("cells => cells.some((cell) => cell.getClientRects()[0].width < 30)")
    assert not cut
    assert page.evaluate(
        "() => { const panel = document.getElementById('panel'); return panel.scrollWidth <= panel.clientWidth; }"
    )


def test_drag_changes_the_window_and_keys_the_view(browser_page: Page, finding: tuple[int, int]) -> None:
    page = browser_page
    enter(page, Role.READER)
    open_case(page, finding[0])
    before = pixels(page)
    box = page.locator("canvas#film").bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 340, steps=3)
    page.mouse.up()
    dragged = pixels(page)
    assert dragged != before
    page.keyboard.press("0")
    assert pixels(page) == before
    page.keyboard.press("i")
    inverted = pixels(page)
    assert [255 - value for value in inverted[0::4]][400] == before[0::4][400]
    page.keyboard.press("i")
    for key in ("r", "+"):
        page.keyboard.press(key)
        assert pixels(page) != before
    for _ in range(3):
        page.keyboard.press("r")
    page.keyboard.press("f")
    assert pixels(page) == before


def test_map_is_drawn_and_taken_away_by_one_key(browser_page: Page, finding: tuple[int, int]) -> None:
    page = browser_page
    enter(page, Role.READER)
    open_case(page, finding[0])
    page.locator("canvas#film[data-map=ready]").wait_for()
    before = pixels(page)
    page.keyboard.press("h")
    expect(page.locator("#legend")).to_contain_text("peak 9.0")
    drawn = pixels(page)
    coloured = [place for place in range(0, len(drawn), 4) if drawn[place] != drawn[place + 2]]
    assert coloured
    page.get_by_label("Strength of the map").fill("0")
    assert pixels(page) == before
    page.keyboard.press("h")
    expect(page.locator("#legend")).to_be_hidden()


def test_map_lies_on_the_film_where_the_results_have_it(browser_page: Page, finding: tuple[int, int]) -> None:
    page, header = browser_page, pydicom.dcmread(SAMPLES / "08-cr-portable.dcm", stop_before_pixels=True)
    enter(page, Role.READER)
    open_case(page, finding[0])
    page.locator("canvas#film[data-map=ready]").wait_for()
    page.keyboard.press("h")
    expect(page.locator("#legend")).to_contain_text("peak 9.0")
    drawn = page.evaluate(
        """([rows, columns]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
            const { width, height } = document.getElementById("film");
            const { data } = document.getElementById("film").getContext("2d").getImageData(0, 0, width, height);
            const scale = Math.min(width / columns, height / rows), across = [], down = [];
            for (let place = 0; place < data.length; place += 4) {
                if (data[place] === data[place + 2]) continue;
                const x = place / 4 % width, y = Math.floor(place / 4 / width);
                across.push((x - width / 2) / scale / columns + 0.5);
                down.push((y - height / 2) / scale / rows + 0.5);
            }
            const least = (all) => all.reduce((a, b) => Math.min(a, b)), most = (all) => -least(all.map((one) => -one));
            done([least(across), most(across), least(down), most(down)]);
        })))""",
        [header.Rows, header.Columns],
    )
    inside = surface_of(hill(), 1000, 1000) >= 2.0
    expected = [share for axis in (0, 1) for share in np.flatnonzero(inside.any(axis=axis))[[0, -1]] / 1000]
    assert drawn == pytest.approx(expected, abs=0.01)


def test_verdict_by_one_key_and_back(browser_page: Page, site: Site, archive: Archive) -> None:
    page = browser_page
    study_id, _ = archive.add("02-cr-latin.dcm", 0.1)
    enter(page, Role.RADIOLOGIST)
    open_case(page, study_id)
    page.keyboard.press("d")
    expect(page.locator(".own")).to_contain_text("You disagree.")
    assert standing(site, study_id) == [("radiologist", False, False)]
    page.keyboard.press("u")
    expect(page.locator(".own")).to_have_count(0)
    page.keyboard.press("a")
    expect(page.locator(".own")).to_contain_text("You agree.")
    page.keyboard.press("c")
    page.keyboard.type("as expected")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("#p-readers")).to_contain_text("as expected")
    assert standing(site, study_id) == [("radiologist", True, False)]


def test_another_reader_s_verdict_appears_by_itself_and_typing_is_left_alone(
    browser_page: Page, site: Site, archive: Archive
) -> None:
    page = browser_page
    study_id, _ = archive.add("02-cr-latin.dcm", 0.1)
    enter(page, Role.RADIOLOGIST)
    open_case(page, study_id)
    page.keyboard.press("a")
    expect(page.locator(".own")).to_be_visible()
    page.keyboard.press("c")
    page.keyboard.type("half a sen")
    with site.database.begin() as session:
        study, now = session.get_one(Study, study_id), site.database.now(session)
        verdicts.give(session, study, revision=1, user_id=4, agrees=False, token="another reader", now=now)
        audit.record(session, "verdict given", actor="auditor", now=now, study_id=study_id)
    expect(page.locator("#p-readers li")).to_have_count(2)
    assert page.locator("#comment").input_value() == "half a sen"


def test_hostile_text_is_shown_and_never_run(browser_page: Page, archive: Archive, site: Site) -> None:
    page = browser_page
    ran: list[str] = []
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss())[0])
    study_id, film_id = archive.receive(SAMPLES / "06-cr-mass.dcm")
    archive.give_up(film_id, HOSTILE)
    with site.database.begin() as session:
        session.execute(
            update(Study)
            .where(Study.id == study_id)
            .values(
                patient_name=HOSTILE,
                patient_id=HOSTILE,
                accession_number=HOSTILE,
                study_description=HOSTILE * 1000,
                patient_sex=HOSTILE,
                location=HOSTILE,
                study_date=HOSTILE,
                study_time="\0",
            )
        )
        session.execute(
            update(Instance).where(Instance.id == film_id).values(sender=HOSTILE, calling_ae_title=HOSTILE[:16])
        )
    archive.conclude(study_id)
    enter(page, Role.RADIOLOGIST)
    open_case(page, study_id)
    expect(page.locator("#p-patient")).to_contain_text("<script>alert(2)</script>")
    expect(page.locator("#p-films")).to_contain_text("<img src=x")
    assert ran == []
    assert page.locator("img").count() == 0


def test_login_that_ended_leaves_the_film_and_says_so(browser_page: Page, site: Site, finding: tuple[int, int]) -> None:
    """With a study of earlier: news of one that has just come would ask for the page anew, and lead to the login."""
    page, (study_id, _) = browser_page, finding
    enter(page, Role.RADIOLOGIST)
    open_case(page, study_id)
    before = pixels(page)
    page.context.clear_cookies()
    page.keyboard.press("2")
    assert pixels(page) != before
    page.keyboard.press("a")
    page.wait_for_url(re.compile("/login"))
    assert standing(site, study_id) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_case_is_for_everybody(site: Site, chromium: Browser, finding: tuple[int, int], theme: str) -> None:
    context = chromium.new_context(base_url=site.url, color_scheme=theme, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    enter(page, Role.RADIOLOGIST)
    open_case(page, finding[0])
    page.keyboard.press("h")
    assert_accessible(page)
    page.set_viewport_size({"width": 640, "height": 400})  # what 200 % leaves of 1280
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    context.close()


def test_keys_lead_to_the_neighbours_in_the_list_and_back(browser_page: Page, archive: Archive) -> None:
    page = browser_page
    first, second = (archive.receive(SAMPLES / "06-cr-mass.dcm")[0] for _ in range(2))
    enter(page, Role.READER)
    remembered = {"path": "/worklist?sex=M", "ids": [first, second]}
    open_case(page, first)
    page.evaluate("list => sessionStorage.setItem('clearfilm-list', JSON.stringify(list))", remembered)
    open_case(page, first)
    page.keyboard.press("j")
    page.wait_for_url(f"**/studies/{second}")
    page.locator("canvas#film[data-state=ready]").wait_for()
    page.keyboard.press("j")
    expect(page.locator("#notices")).to_contain_text("last case")
    page.keyboard.press("k")
    page.wait_for_url(f"**/studies/{first}")
    page.locator("canvas#film[data-state=ready]").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url("**/worklist?sex=M")


def test_two_fingers_zoom_and_pan_and_one_sets_the_window(
    site: Site, chromium: Browser, finding: tuple[int, int]
) -> None:
    context = chromium.new_context(base_url=site.url, viewport={"width": 1280, "height": 800}, has_touch=True)
    page = context.new_page()
    enter(page, Role.READER)
    page.goto(f"/studies/{finding[0]}")
    canvas = page.locator("canvas#film[data-state=ready]")
    box = canvas.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x + dx, "y": y + dy, "id": number} for number, (dx, dy) in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    shown = page.locator("#zoom"), page.locator("#window")
    zoom, window = (place.inner_text() for place in shown)
    touch("touchStart", (-50, 0))
    touch("touchStart", (-50, 0), (50, 0))
    touch("touchMove", (-100, 0), (100, 0))
    expect(shown[0]).not_to_have_text(zoom)
    before, after = (int(said.removesuffix(" %")) for said in (zoom, shown[0].inner_text()))
    assert after == pytest.approx(2 * before, abs=1)
    # The finger that stays does not change the window.
    touch("touchEnd", (-100, 0))
    touch("touchMove", (0, 60))
    touch("touchEnd")
    expect(shown[1]).to_have_text(window)
    touch("touchStart", (0, 0))
    touch("touchMove", (80, 0))
    touch("touchEnd")
    expect(shown[1]).not_to_have_text(window)
    context.close()
