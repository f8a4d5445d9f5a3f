"""HL7 v2 ORU^R01."""

import pytest

from clearfilm.errors import RefusedReport
from db.models import ReportStatus
from training.reports import hl7_message
from training.reports.hl7_message import RefusedMessage

OBX = "OBX|1|TX|1&GDT^Findings||两肺清晰||||||F\rOBX|2|FT|1&IMP^Impression||两肺心膈\\.br\\未见异常~A\\T\\B||||||F\r"


def message(
    body: str = OBX, *, charset: str = "UNICODE UTF-8", status: str = "F", kind: str = "ORU^R01", obr: str = "ACC1"
) -> str:
    return (
        f"MSH|^~\\&|RIS|医院|CF|H|20260301120000||{kind}|42|P|2.5.1||||||{charset}\r"
        f"PID|1||P1^^^H||王^小明\rOBR|1|PL1|{obr}^RIS|XR^Chest||||||||||||||||||202603011130+0800|||{status}\r{body}"
    )


@pytest.mark.parametrize(
    ("charset", "encoding", "default"),
    [
        ("UNICODE UTF-8", "utf-8", "gb18030"),
        ("GB 18030-2000", "gb18030", "utf-8"),
        ("", "gb18030", "gb18030"),
        ("", "utf-8", "utf-8"),
    ],
)
def test_character_set_of_msh_18_counts_before_the_sites(charset: str, encoding: str, default: str) -> None:
    parsed = hl7_message.parse(message(charset=charset).encode(encoding), default)
    (report,) = parsed.reports("OBR-3")
    assert (report.findings, report.impression) == ("两肺清晰", "两肺心膈\n未见异常\nA&B")
    assert (report.accession_number, report.patient_id) == ("ACC1", "P1")
    assert report.reported_at is not None


@pytest.mark.parametrize(
    ("code", "expected"), [("F", ReportStatus.FINAL), ("C", ReportStatus.FINAL), ("P", ReportStatus.PRELIMINARY)]
)
def test_status_of_the_order(code: str, expected: ReportStatus) -> None:
    (report,) = hl7_message.parse(message(status=code).encode(), "utf-8").reports("OBR-3")
    assert report.status is expected


def test_an_addendum_is_seen() -> None:
    body = "OBX|1|TX|1&ADT^Addendum||Right pneumothorax||||||F\r"
    (report,) = hl7_message.parse(message(body).encode(), "utf-8").reports("OBR-3")
    assert (report.status, report.findings) == (ReportStatus.ADDENDUM, "Right pneumothorax")


def test_study_uid_of_zds_and_text_with_headings() -> None:
    body = "OBX|1|TX|1^Report||FINDINGS: Clear.\\.br\\IMPRESSION: Normal.\rZDS|1.2.3^^Application^DICOM\r"
    (report,) = hl7_message.parse(message(body, obr="").encode(), "utf-8").reports("OBR-3")
    assert (report.study_instance_uid, report.accession_number) == ("1.2.3", None)
    assert (report.findings, report.impression) == ("Clear.", "Normal.")


def test_several_orders_are_several_reports() -> None:
    second = "OBR|2||ACC2|XR\rOBX|1|TX|1&IMP||Normal chest.\r"
    found = hl7_message.parse((message() + second).encode(), "utf-8").reports("OBR-3")
    assert [report.accession_number for report in found] == ["ACC1", "ACC2"]


def test_each_order_has_its_own_study_and_each_patient_its_own_orders() -> None:
    body = "OBX|1|TX|1&IMP||Lungs clear.\rZDS|1.2.3^^Application^DICOM\r"
    second = "OBR|2||ACC2|XR\rOBX|1|TX|1&IMP||Pneumonia.\rZDS|1.2.4^^Application^DICOM\r"
    third = "PID|2||P2\rZDS|1.2.5\rOBR|3||ACC3|XR\rOBX|1|TX|1&IMP||Mass.\r"
    found = hl7_message.parse((message(body) + second + third).encode(), "utf-8").reports("OBR-3")
    assert [(one.accession_number, one.study_instance_uid, one.patient_id) for one in found] == [
        ("ACC1", "1.2.3", "P1"),
        ("ACC2", "1.2.4", "P1"),
        ("ACC3", "1.2.5", "P2"),
    ]


@pytest.mark.parametrize("status", ["D", "W", "X"])
def test_withdrawn_observations_do_not_count(status: str) -> None:
    body = f"OBX|1|TX|1&IMP||Pneumonia||||||{status}\rNTE|1||See there\rOBX|2|TX|1&IMP||Lungs clear||||||C\r"
    (report,) = hl7_message.parse(message(body).encode(), "utf-8").reports("OBR-3")
    assert report.impression == "Lungs clear"


def test_no_word_of_an_observation_is_lost() -> None:
    body = (
        "OBX|1|CWE|1&IMP||N^Normal heart^L~P^Pneumonia^L~RAW||||||F\rNTE|1||Correction: effusion\r"
        "OBX|2|FT|1&GDT||\\H\\A\\N\\ \\F\\ \\XE6B094E883B8\\ \\Zx\\B\\.br\\C||||||F\r"
    )
    (report,) = hl7_message.parse(message(body).encode(), "utf-8").reports("OBR-3")
    assert report.impression.split("\n") == ["Normal heart", "Pneumonia", "RAW", "Correction: effusion"]
    assert report.findings.split() == ["A", "|", "气胸", "B", "C"]


def test_what_cannot_be_understood_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    hl7_message.parse(message("OBX|1|FT|1&IMP||\\Zx\\ Pneumonia\r").encode(), "utf-8").reports("OBR-3")
    assert not caplog.records


@pytest.mark.parametrize(("observed", "wanted"), [("P", ReportStatus.PRELIMINARY), ("F", ReportStatus.FINAL)])
def test_status_of_the_observations_counts_where_the_order_has_none(observed: str, wanted: ReportStatus) -> None:
    body = f"OBX|1|TX|1&IMP||Lungs clear||||||{observed}\r"
    (report,) = hl7_message.parse(message(body, status="").encode(), "utf-8").reports("OBR-3")
    assert report.status is wanted


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"", "MSH"),
        (b"hello", "MSH"),
        (message(kind="ADT^A01").encode(), "only ORU"),
        (message(charset="KLINGON").encode(), "not known"),
        (message(charset="UNICODE UTF-8").encode("gb18030"), "is not utf-8"),
        (message().replace("^~\\&", "*~\\&", 1).encode(), "MSH-2|only ORU|parsed"),
        (b"MSH|^~\\&|", "parsed|only ORU"),
        # What stands in such a line would be lost, and the rest might be labelled as clear.
        (message("OBX|1|TX|1&IMP||Lungs clear.\nPneumothorax on the right||||||F\r").encode(), "no segment"),
        (message(OBX + message()).encode(), "more than one message"),
    ],
)
def test_what_is_no_report_message_is_rejected(block: bytes, reason: str) -> None:
    with pytest.raises(RefusedMessage, match=reason):
        hl7_message.parse(block, "utf-8")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (message(""), "no observation"),
        (message(obr=""), "neither accession"),
        (message(status="X"), "cancelled"),
        (message("OBX|1|TX|1||\r"), "no text"),
    ],
)
def test_a_report_that_cannot_be_kept_is_an_error_of_the_message(text: str, reason: str) -> None:
    with pytest.raises(RefusedReport, match=reason):
        hl7_message.parse(text.encode(), "utf-8").reports("OBR-3")


def test_acknowledgement_names_the_message_and_swaps_the_parties() -> None:
    text = hl7_message.parse(message().encode(), "utf-8").acknowledge("AE", "bad | text\rX").decode()
    header, answer, _ = text.split("\r")
    assert header.startswith("MSH|^~\\&|CF|H|RIS|医院|")
    assert answer == "MSA|AE|42|bad   text X"
