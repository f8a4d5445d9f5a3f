"""`clearfilm send`: a C-STORE SCU for files and folders."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from clearfilm.config import check_ae_title, check_host
from clearfilm.dicom import scu
from clearfilm.errors import DeliveryError, PeerRefused, UsageError
from cli.terminal import complain, progress, say

_ADDRESS = re.compile(r"(?P<title>[^@]+)@(?P<host>[^:]+|\[[^]]+\]):(?P<port>[0-9]{1,5})")
_MAXIMUM_CONTEXTS = 126  # 128 in all (PS3.8 9.3.2.2), one of them for Verification


@dataclass(frozen=True)
class Outgoing:
    """A file to send."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str


def parse_peer(text: str) -> scu.Peer:
    """``AE@HOST:PORT`` as a peer. Raises UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UsageError(f"{text!r} is not of the form AE@HOST:PORT")
    title, host = _checked(check_ae_title, match["title"]), _checked(check_host, match["host"].strip("[]"))
    return scu.Peer(title, host, int(match["port"]))


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from error


def send_files(paths: list[Path], to: str, calling: str) -> int:
    """Send everything below `paths`.

    Returns
    -------
    int
        Exit code: 0 if the peer stored every file.

    Raises
    ------
    UsageError
        If `to` is no address, or a title is none.
    """
    peer, calling = parse_peer(to), _checked(check_ae_title, calling)
    files, unreadable = _collect(paths)
    for path in unreadable:
        complain(f"{path}: is not a DICOM file")
    refusals: Counter[str] = Counter()
    sent = 0
    with progress() as bar:
        task = bar.add_task("sending", total=len(files))
        for batch in _batches(files):
            for refusal in _send_batch(batch, peer, calling):
                bar.advance(task)
                if refusal:
                    refusals[refusal] += 1
                else:
                    sent += 1
    say(f"{sent} stored, {sum(refusals.values())} refused, {len(unreadable)} not DICOM")
    for reason, count in refusals.most_common():
        complain(f"{count} × {reason}")
    return 0 if sent == len(files) and files and not unreadable else 1


def _send_batch(batch: list[Outgoing], peer: scu.Peer, calling: str) -> Iterator[str | None]:
    """One association; yields the reason of refusal for each file, or None."""
    syntaxes = sorted({(file.sop_class_uid, file.transfer_syntax_uid) for file in batch})
    contexts = [context for uid, syntax in syntaxes for context in scu.storage_contexts(uid, [syntax])]
    done = 0
    try:
        with scu.associate(calling, peer, contexts) as association:
            for file in batch:
                try:
                    scu.store(association, peer, file.path)
                except PeerRefused as error:
                    yield str(error)
                else:
                    yield None
                done += 1
    except DeliveryError as error:
        for _ in batch[done:]:
            yield str(error)


def _collect(paths: list[Path]) -> tuple[list[Outgoing], list[Path]]:
    files: list[Outgoing] = []
    unreadable: list[Path] = []
    for path in _walk(paths):
        try:
            meta = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
            files.append(Outgoing(path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)))
        except (InvalidDicomError, AttributeError, OSError, ValueError, EOFError):
            unreadable.append(path)
    return files, unreadable


def _walk(paths: list[Path]) -> Iterator[Path]:
    """Files as named; of folders the *.dcm files and those without a suffix."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in (".dcm", ""))
        else:
            yield path


def _batches(files: list[Outgoing]) -> Iterator[list[Outgoing]]:
    """Split where an association would need too many presentation contexts."""
    batch: list[Outgoing] = []
    kinds: set[tuple[str, str]] = set()
    for file in files:
        kind = (file.sop_class_uid, file.transfer_syntax_uid)
        if kind not in kinds and len(kinds) == _MAXIMUM_CONTEXTS:
            yield batch
            batch, kinds = [], set()
        batch.append(file)
        kinds.add(kind)
    if batch:
        yield batch
