"""Failures in plain words: every reason that the program writes down has its cause."""

from datetime import UTC, datetime

import pytest

from db.operations import Reason
from worklist import causes

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("the stored file is missing", causes.LOST),
        ("analysis failed: the process ended without a result 3 times", causes.CRASHED),
        ("analysis failed: unexpected ValueError", causes.UNEXPECTED),
        ("conclusion failed: unexpected KeyError", causes.UNEXPECTED),
        ("analysis failed: cancelled by ann", causes.CANCELLED),
        ("PACS@pacs:104 has no address: Name or service not known", causes.NO_ADDRESS),
        ("PACS@pacs:104 rejected the association: Calling AE title not recognised", causes.REJECTED),
        (
            "PACS@pacs:104 did not answer, or ended the association before it was established",
            causes.UNREACHABLE,
        ),
        ("PACS@pacs:104 accepted no presentation context for this object", causes.NO_CONTEXT),
        ("PACS@pacs:104 answered 0xA700", causes.FULL),
        ("PACS@pacs:104 answered 0xA900", causes.MISMATCH),
        ("PACS@pacs:104 answered 0xC001", causes.NOT_UNDERSTOOD),
        ("PACS@pacs:104 answered 0x0122", causes.NOT_ALLOWED),
        ("PACS@pacs:104 answered 0x0110", causes.STATUS),
        ("PACS@pacs:104 did not answer; whether it stored the object is unknown", causes.SILENT),
        ("PACS@pacs:104 ended the association", causes.SILENT),
        ("the destination did not commit to storing it", causes.NOT_COMMITTED),
        ("", causes.OTHER),
    ],
)
def test_reason_has_its_cause(reason: str, cause: causes.Cause) -> None:
    assert causes.explain(reason) is cause


def test_one_cause_at_one_place_is_one_group_whatever_the_words() -> None:
    found = causes.grouped(
        [
            Reason("delivery", "pacs", "PACS@pacs:104 answered 0xC001", 0xC001, 2, AT),
            Reason("delivery", "pacs", "PACS@pacs:104 answered 0xC101", 0xC101, 3, AT),
            Reason("delivery", "archive", "A@a:104 answered 0xC001", 0xC001, 1, AT),
        ]
    )
    assert [(group.destination, group.count, len(group.reasons)) for group in found] == [
        ("pacs", 5, 2),
        ("archive", 1, 1),
    ]
