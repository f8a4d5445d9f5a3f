"""Every event of the audit trail that the program can record is told in Chinese; the record itself stays English."""

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from db.governance import RunOutcome
from tests.hostile import STRINGS
from worklist.rooms.audit_words import EVENTS, event_of, event_words
from worklist.templates import Templates
from worklist.timeline import OPENED

ROOT = Path(__file__).parents[3]
FOLDERS = ("clearfilm", "db", "storescp", "worker", "worklist", "training", "cli")
# Functions that record an event, and which argument it is; others of a module hand their parameter `event` on to them.
RECORDERS = {"audit.record": 1, "page.record": 1, "audited": 0}
COMPUTED = {
    "OPENED": {OPENED},
    "f'training {outcome.value}'": {f"training {one.value}" for one in RunOutcome if one is not RunOutcome.RUNNING},
}
TEMPLATES = Templates()
CHINESE = partial(TEMPLATES.translate, "zh")


def recorded() -> dict[str, str]:
    """Events by the code, each with a place where it is recorded."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for place, event in _of_module(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(event, f"{path.relative_to(ROOT)}:{place}")
    return found


def _of_module(module: ast.Module) -> Iterator[tuple[int, str]]:
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    own = {one.name: _parameters(one).index("event") for one in functions if _hands_on(one)}
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        position = (RECORDERS | own).get(ast.unparse(node.func))
        if position is None:
            continue
        around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
        if not _is_handed_on(node.args[position], around):
            for event in _values(node.args[position], [*reversed(around), module]):
                yield node.lineno, event


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args]


def _hands_on(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    events = [call.args[RECORDERS[name]] for call in calls if (name := ast.unparse(call.func)) in RECORDERS]
    return "event" in _parameters(function) and any(ast.unparse(event) == "event" for event in events)


def _is_handed_on(argument: ast.expr, around: list[ast.FunctionDef | ast.AsyncFunctionDef]) -> bool:
    return ast.unparse(argument) == "event" and any("event" in _parameters(one) for one in around)


def _values(argument: ast.expr, scopes: list[ast.Module | ast.FunctionDef | ast.AsyncFunctionDef]) -> set[str]:
    """What the argument can be; fails where this cannot be told."""
    if (text := ast.unparse(argument)) in COMPUTED:
        return COMPUTED[text]
    match argument:
        case ast.Constant(value=str(event)):
            return {event}
        case ast.IfExp(body=one, orelse=other):
            return _values(one, scopes) | _values(other, scopes)
        case ast.Name(id=name):
            given = next((values for scope in scopes if (values := list(_assigned(scope, name)))), [])
            assert given, f"line {argument.lineno}: what is {name}?"
            return {event for value in given for event in _values(value, scopes)}
    raise AssertionError(f"line {argument.lineno}: which events can {text} be?")


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(scope):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = getattr(node, "value", None)
            if value is not None:
                yield value


def test_every_event_that_is_recorded_has_words_and_no_other() -> None:
    found = recorded()
    assert {event: place for event, place in found.items() if event not in EVENTS} == {}
    assert EVENTS - found.keys() == set()


def test_records_are_written_in_one_place_under_one_name() -> None:
    """Otherwise the search above would miss some."""
    texts = {path: path.read_text(encoding="utf-8") for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    made = [str(path.relative_to(ROOT)) for path, text in texts.items() if re.search(r"(?<!class )\bAudit\(", text)]
    assert made == ["db/audit.py"]
    assert [path for path, text in texts.items() if "from db.audit import" in text or "audit as " in text] == []


def test_each_event_has_words_of_its_own() -> None:
    assert len({event_words(CHINESE, event) for event in EVENTS}) == len(EVENTS)
    assert not any(event_words(CHINESE, event) == event for event in EVENTS)


@pytest.mark.parametrize("text", ["made by a later version", "<b>", "", *STRINGS])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert event_words(CHINESE, text) == text
    assert event_of(TEMPLATES, text) == text


def test_events_are_found_by_the_words_of_either_language() -> None:
    assert event_of(TEMPLATES, "logged in") == event_of(TEMPLATES, " 登录 ") == "logged in"


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('audit.record(session, "a" if good else "b", actor="x")', {"a", "b"}),
        ('def do(session, event):\n    audit.record(session, event)\ndo(session, "c")', {"c"}),
        ('@audited("d")\ndef show(page): ...', {"d"}),
        (
            'def do(page):\n    event = "e"\n    if page:\n        event = "f"\n    page.record(session, event)',
            {"e", "f"},
        ),
    ],
)
def test_search_finds_events_however_they_are_handed_over(code: str, events: set[str]) -> None:
    assert {event for _, event in _of_module(ast.parse(code))} == events


def test_search_does_not_pass_over_what_it_cannot_tell() -> None:
    with pytest.raises(AssertionError, match="which events"):
        list(_of_module(ast.parse("audit.record(session, choose())")))
