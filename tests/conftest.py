"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real films, reports and DICOM files beside the repository."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        message = f"{folder} is missing: tests on real films need it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
