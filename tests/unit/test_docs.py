"""The documents say what the code does."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.section import Section
from cli.main import app

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
GUIDE = (REPOSITORY / "docs" / "administration.md").read_text(encoding="utf-8")
SHIPPED = REPOSITORY / "config.yaml"
ROOMS = ("clearfilm", "db", "storescp", "worker", "worklist", "cli")
# The demo's own peers: these keys have no default.
REQUIRED = "required"


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        blocks = re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        yield from ((f"{path.name}-{number}", block) for number, block in enumerate(blocks, 1))


def keys(model: type[Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """All leaf keys with their defaults; entries of lists as ``senders[].name``."""
    for name, field in model.model_fields.items():
        element = next(iter(typing.get_args(field.annotation)), field.annotation)
        if isinstance(element, type) and issubclass(element, Section):
            suffix = "" if element is field.annotation else "[]"
            yield from keys(element, f"{prefix}{name}{suffix}.")
        else:
            yield prefix + name, REQUIRED if field.is_required() else field.default


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The same keys out of a parsed file."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                yield from flat(entry, f"{prefix}{name}[].")
        else:
            yield prefix + name, value


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert match, title
    return match[1]


def rows(text: str) -> list[list[str]]:
    """Cells of all tables, headings included."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in yaml_blocks()])
def test_configuration_in_a_document_loads(block: str, tmp_path: Path) -> None:
    values = yaml.safe_load(block)
    if not isinstance(values, dict) or not values.keys() & Config.model_fields.keys():
        pytest.skip("not a configuration")
    path = tmp_path / "config.yaml"
    path.write_text(block, encoding="utf-8")
    configuration.load(path)


def test_guide_documents_every_key_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows(section("Configuration"))[1:]}
    expected = {
        key: default
        if isinstance(default, str)
        else yaml.safe_dump(plain(default), default_flow_style=True, width=10_000, allow_unicode=True).splitlines()[0]
        for key, default in keys(Config)
    }
    assert documented == expected


def plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def test_shipped_configuration_loads() -> None:
    configuration.load(SHIPPED)


def test_shipped_configuration_holds_every_key_with_its_default() -> None:
    shipped = dict(flat(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))))
    defaults = dict(keys(Config))
    assert shipped.keys() == defaults.keys()
    different = {
        key: value for key, value in shipped.items() if defaults[key] is not REQUIRED and value != plain(defaults[key])
    }
    assert not different


def test_each_key_of_the_shipped_configuration_has_a_comment() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    leaves = [line for line in lines if re.match(r" *(- )?\w+: *[^ #]", line)]
    assert leaves
    assert [line for line in leaves if " # " not in line] == []


def test_guide_names_every_command() -> None:
    names = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        names += [f"{name} {sub}" for sub in command.commands] if hasattr(command, "commands") else [name]
    listed = section("Exit codes")
    assert [name for name in names if f"`{name}`" not in listed] == []


def test_events_of_the_guide_are_in_the_code() -> None:
    code = sources()
    events = [event for row in rows(section("Log"))[1:] for event in re.findall(r"`([^`]+)`", row[0])]
    assert events
    assert [event for event in events if f'"{event}"' not in code] == []


def test_quoted_messages_of_the_guide_are_in_the_code() -> None:
    code = sources()
    quoted = [text for row in rows(section("Troubleshooting")) for text in re.findall(r'"([^"]+)"', row[0])]
    fragments = [
        part.strip() for text in quoted for part in text.removeprefix("not analysed: ").split("…") if part.strip()
    ]
    known_elsewhere = {"no presentation context", "file is not a database"}  # said by others
    assert fragments
    assert [part for part in fragments if part not in code and part not in known_elsewhere] == []


def test_guide_installs_the_tested_torch() -> None:
    pinned = re.search(r'^TORCH="(.+)"$', (REPOSITORY / "environment.sh").read_text(), re.MULTILINE)
    assert pinned
    assert f"pip install {pinned[1]}\n" in GUIDE


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_links_between_documents_resolve(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []
