"""The page of a case with a large film: how long until it is drawn and answers a drag, in Chromium on loopback.

    python -m bench.case [--picture FILE] [--rounds 10] [--out FILE]

The film has 3000 × 2500 pixels of 16 bits, once uncompressed and once as lossless JPEG 2000, JPEG and JPEG-LS.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from playwright.sync_api import Page, sync_playwright
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from clearfilm.config import Config, Study
from db import schema
from db.accounts import Role
from db.session import Database
from tests.conftest import CHROMIUM, FLAGS
from tests.integration.worklist.conftest import enter, seed_users, serving
from tests.integration.worklist.films import Archive, write_film

ROWS, COLUMNS = 3000, 2500
# A drag across the film; done when the canvas shows other greys. Time runs from the navigation.
_DRAG = """() => new Promise((done) => {
    const canvas = document.getElementById("film"), box = canvas.getBoundingClientRect();
    const grey = () => canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0];
    const before = grey(), began = performance.now();
    const point = (name, x) => canvas.dispatchEvent(new PointerEvent(name, {
        pointerId: 1, button: 0, clientX: box.x + x, clientY: box.y + 200 + x / 2 }));
    canvas.setPointerCapture = () => {};
    point("pointerdown", 200); point("pointermove", 320); point("pointerup", 320);
    const look = () => grey() !== before
        ? done({ drag: performance.now() - began, interactive: performance.now() }) : requestAnimationFrame(look);
    requestAnimationFrame(look);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time until a case answers.")
    parser.add_argument("--picture", type=Path, help="a chest film as 8-bit picture; without it a smooth one")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-case-") as name:
        figures = measure(Path(name), picture(arguments.picture), arguments.rounds)
    text = json.dumps(figures, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.out:
        arguments.out.write_text(text + "\n")


def picture(path: Path | None) -> NDArray[np.uint8]:
    """The film's content, 8 bits."""
    if path is None:
        return np.add.outer(np.linspace(20, 200, 1024), np.linspace(0, 55, 1024)).astype(np.uint8)
    found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if found is None:
        sys.exit(f"{path} is no picture")
    return np.asarray(found, np.uint8)


def measure(folder: Path, content: NDArray[np.uint8], rounds: int) -> dict[str, Any]:
    """Figures for each encoding."""
    config = Config(data_folder=folder / "data", study=Study(quiet_seconds=0))
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)
        seed_users(database)
        archive = Archive(database, config)
        archive.activate_model()
        studies = {}
        for encoding, path in films(folder, content).items():
            study_id, film_id = archive.receive(path)
            archive.read(film_id, 0.9)
            archive.conclude(study_id)
            studies[encoding] = study_id
        with serving(config, database) as server, browsing(server.url) as page:
            return {encoding: case(page, study_id, rounds) for encoding, study_id in studies.items()}


def films(folder: Path, content: NDArray[np.uint8]) -> dict[str, Path]:
    """The same film in each encoding."""
    plain = write_film(folder / "plain.dcm", content, ROWS, COLUMNS)
    ds = pydicom.dcmread(plain)
    stored = ds.pixel_array
    found = {"uncompressed": plain}
    packed = {
        "JPEG lossless": (JPEGLosslessSV1, imagecodecs.ljpeg_encode(stored)),
        "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode(stored)),
        "JPEG 2000 lossless": (JPEG2000Lossless, imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True)),
    }
    for name, (syntax, stream) in packed.items():
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        found[name] = folder / f"{name}.dcm"
        ds.save_as(found[name], enforce_file_format=True)
    return found


@contextmanager
def browsing(url: str) -> Iterator[Page]:
    """A logged-in radiologist on a screen of 1920 × 1200."""
    with sync_playwright() as playwright:
        sandbox = os.geteuid() != 0
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=sandbox)
        page = browser.new_context(base_url=url, viewport={"width": 1920, "height": 1200}).new_page()
        enter(page, Role.RADIOLOGIST)
        yield page
        browser.close()


def case(page: Page, study_id: int, rounds: int) -> dict[str, float]:
    """Milliseconds from the navigation until the film is drawn, and until a drag of the window shows."""
    drawn, answers, drags = [], [], []
    for _ in range(rounds):
        page.goto(f"/studies/{study_id}", wait_until="commit")
        page.locator("canvas#film[data-state=ready]").wait_for()
        found = page.evaluate(_DRAG)
        drawn.append(page.evaluate("performance.getEntriesByName('film-drawn')[0].startTime"))
        answers.append(found["interactive"])
        drags.append(found["drag"])
    return {
        "film_drawn_median_ms": round(statistics.median(drawn)),
        "interactive_median_ms": round(statistics.median(answers)),
        "interactive_worst_ms": round(max(answers)),
        "drag_median_ms": round(statistics.median(drags)),
    }


if __name__ == "__main__":
    main()
