"""The conformance statement says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from clearfilm.config import Config, Destination, Node, Sender
from clearfilm.dicom import codecs, statuses
from clearfilm.triage import Decision
from cli import conformance
from cli.conformance import statement
from storescp import policy
from worker import deliver

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def text() -> str:
    return statement()


def test_committed_statement_is_what_the_generator_prints(text: str) -> None:
    committed = (REPOSITORY / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert committed == text, "run: clearfilm conformance > docs/conformance.md"


def test_statement_is_deterministic(text: str) -> None:
    assert statement() == text


@pytest.mark.parametrize("number", range(1, 9))
def test_chapters_of_the_template_are_all_there(text: str, number: int) -> None:
    assert re.search(rf"^## {number} ", text, re.MULTILINE)


def test_every_accepted_and_proposed_class_and_syntax_is_named(text: str) -> None:
    named = {*policy.FILM_CLASSES, policy.SECONDARY_CAPTURE, *deliver.RESULT_CLASSES}
    for uid in {*named, *codecs.UNCOMPRESSED, *codecs.CODECS}:
        assert f"`{uid}`" in text


def test_every_status_that_the_code_can_send_is_explained() -> None:
    sources = [path.read_text() for room in ("storescp", "clearfilm") for path in (REPOSITORY / room).rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"\bstatuses\.([A-Z_]+)\b", source)}
    assert {getattr(statuses, name) for name in used} == set(conformance.STATUSES)


def test_every_rejection_of_the_policy_is_listed(text: str) -> None:
    rejections = [value for value in vars(policy).values() if isinstance(value, policy.Rejection)]
    assert rejections
    for rejection in rejections:
        assert f"| {rejection.result}/{rejection.source}/{rejection.diagnostic} | {rejection.reason} |" in text


def test_series_descriptions_are_those_of_the_contract(text: str) -> None:
    for decision in Decision:
        assert f"`{decision.series_description}`" in text


def test_statement_tells_of_commitment_reports_on_another_association(text: str) -> None:
    destination = Destination(name="archive", ae_title="ARCHIVE", host="192.0.2.9", port=11113)
    taken = {
        context.abstract_syntax for context in policy.supported_contexts(policy.Admission(destination=destination))
    }
    assert (StorageCommitmentPushModel in taken) == ("association that the destination opens is taken" in text)


def test_statement_of_a_site_names_its_titles_and_peers() -> None:
    config = Config.model_construct(
        node=Node(ae_title="SITE_AE", port=104),
        senders=(Sender(name="room", ae_title="XR1", addresses=("192.0.2.1",), secondary_capture=True),),
        destinations=(Destination(name="archive", ae_title="ARCHIVE", host="192.0.2.9", port=11113),),
    )
    text = statement(config)
    assert "AE title `SITE_AE`, address 127.0.0.1, TCP port 104" in text
    assert "| room | `XR1` | 192.0.2.1 | yes |" in text
    assert "| archive | `ARCHIVE` | 192.0.2.9:11113 | yes |" in text


def test_statement_is_printed_without_torch() -> None:
    code = "import sys; from cli.conformance import statement; statement(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY).returncode == 0
