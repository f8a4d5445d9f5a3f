"""Films in full depth, and the maps that lie on them."""

import asyncio
import json
import zlib
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from clearfilm.errors import BundleError, NotAnalysable
from clearfilm.maps import UNREADABLE_MAP, read_evidence
from clearfilm.vision import placing, scale
from clearfilm.vision.bundle import read_description
from db.models import Analysis, Instance, ModelBundle
from worklist import cases
from worklist.access import READERS, allow
from worklist.answers import Problem
from worklist.page import Page, PageMaker, audited
from worklist.reasons import reason_words
from worklist.templates import N_

room = APIRouter(prefix="/studies/{study_id}/films/{film_id}")

# Fastest level: a film shrinks to two fifths in a tenth of a second, which pays on a line of 1 Gbit/s or less.
_COMPRESSION: Final = 1


@room.get("", dependencies=[audited("film shown")])
@allow(*READERS)
async def film(page: Page, study_id: int, film_id: int) -> Response:
    """The stored values of a film, see `clearfilm.dicom.full_depth.FullFilm`; its facts in the header X-Film.

    Waits for the decoder without a thread, of which there are few.
    """
    path = await run_in_threadpool(_path, page, study_id, film_id)
    try:
        decoded = await asyncio.wrap_future(page.services.films.submit(path))
    except NotAnalysable as error:
        raise Problem(
            422, N_("The film cannot be shown: {reason}."), reason=reason_words(page.say, error.reason)
        ) from error
    headers, content = {"X-Film": json.dumps(decoded.facts)}, decoded.content
    if _pays(page):
        content = await run_in_threadpool(_packed, content)
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type="application/octet-stream", headers=headers)


def _path(page: PageMaker, study_id: int, film_id: int) -> Path:
    with page.services.database.read() as session:
        path = page.services.config.data_folder / _film(session, study_id, film_id).path
    if not path.is_file():
        raise Problem(410, N_("The film is not in the store any more."))
    return path


def _packed(content: bytes) -> bytes:
    packer = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@room.get("/map")
@allow(*READERS)
def heatmap(page: Page, study_id: int, film_id: int) -> Response:
    """Evidence of a film and how it is drawn, or why it is not. The page that asks was recorded when it was shown."""
    with page.services.database.read() as session:
        stored = _film(session, study_id, film_id)
        standing = cases.standing(page, session, study_id)
        if not standing.answer_shown:
            raise Problem(403, N_("The answer to this study is not shown yet."))
        found = cases.reading(session, stored)
        model = session.get(ModelBundle, found.model_id) if found else None
    if found is None or model is None or found.map_path is None:
        raise Problem(404, N_("There is no map: this film was not analysed."))
    return JSONResponse(_map(page, found, model))


def _map(page: PageMaker, found: Analysis, model: ModelBundle) -> dict[str, Any]:
    assert found.map_path is not None
    try:
        evidence = read_evidence(page.services.config.data_folder / found.map_path)
        threshold = read_description(Path(model.path)).evidence_threshold
    except UNREADABLE_MAP as error:
        raise Problem(410, N_("The map cannot be read any more.")) from error
    except BundleError as error:
        raise Problem(410, N_("The model's bundle is not there any more: its map cannot be drawn.")) from error
    peak = float(evidence.max())
    words = None
    if not found.above:
        words = page.say(N_("Nothing is drawn: this film is below the operating point."))
    elif not peak >= threshold:
        words = page.say(N_("No region above the evidence threshold of {threshold}."), threshold=f"{threshold:.1f}")
    return {
        "rows": evidence.shape[0],
        "columns": evidence.shape[1],
        "centre": placing.CENTRE,
        # What is not drawn is not told either.
        "evidence": [] if words else np.round(evidence.astype(np.float64), 4).ravel().tolist(),
        "threshold": threshold,
        "span": scale.EVIDENCE_SPAN,
        "peak": peak,
        "wash": scale.WASH,
        "contour": list(scale.CONTOUR),
        "halo": list(scale.HALO),
        "ramp": scale.ramp().ravel().tolist(),
        "words": words,
    }


def _film(session: Session, study_id: int, film_id: int) -> Instance:
    found = session.get(Instance, film_id)
    if found is None or found.study_id != study_id:
        raise Problem(404, N_("There is no such film."))
    return found


def _pays(page: PageMaker) -> bool:
    """Whether to compress: not within one machine, where the line is faster than the compression."""
    if "gzip" not in page.request.headers.get("accept-encoding", ""):
        return False
    try:
        return not ip_address(page.visit.address).is_loopback
    except ValueError:
        return True
