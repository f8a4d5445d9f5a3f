"""One test PACS and one node for each test module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import test_pacs
from tests.acceptance.nodes import Node


@pytest.fixture(scope="module")
def pacs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pacs")


@pytest.fixture(scope="module")
def pacs(pacs_folder: Path) -> Iterator[int]:
    """A running test PACS; its port."""
    with test_pacs.running(pacs_folder, "PACS", "127.0.0.1", 0) as (_, port):
        yield port


@pytest.fixture(scope="module")
def crash_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: int, crash_folder: Path) -> Iterator[Node]:
    """A running node that sends to the test PACS."""
    node = Node(tmp_path_factory.mktemp("node"), pacs, environment={"CLEARFILM_CRASH_FOLDER": str(crash_folder)})
    node.start()
    yield node
    assert node.stop() == 0
