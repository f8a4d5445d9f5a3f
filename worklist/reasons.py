"""Why films get no answer and why work fails, as recorded, in the viewer's language; other texts stay as they are."""

from __future__ import annotations

from typing import Final

from worklist.recorded import Recorded, Say
from worklist.templates import N_

_REASONS: Final = Recorded(
    # The gate.
    N_("pixel values are constant"),
    N_("the picture is mostly empty"),
    N_("own result"),
    N_("For Processing image"),
    N_("not a radiograph"),
    N_("multi-frame image"),
    N_("colour image"),
    N_("test or derived image"),
    N_("not a human patient"),
    N_("patient under 18"),
    N_("paediatric examination"),
    N_("the patient's age is not stated"),
    N_("the patient's age cannot be read"),
    N_("body part is not the chest"),
    N_("body part is not stated"),
    N_("the description names another body part"),
    N_("not a frontal view"),
    N_("the description names another view"),
    N_("the description names several views"),
    N_("the view is not stated"),
    N_("implausible size, {columns} x {rows} pixels"),
    N_("implausible shape, {columns} x {rows} pixels"),
    N_("modality is not stated"),
    N_("view is not stated"),
    N_("modality is not supported"),
    N_("body part is not supported"),
    N_("view is not supported"),
    N_("the image is unlike the frontal chest films that the model knows"),
    # Decoding.
    N_("no pixel data"),
    N_("the compressed pixel data are cut off"),
    N_("the compressed pixel data are damaged"),
    N_("the compressed pixel data cannot be decoded"),
    N_("there is no decoder for its compression"),
    N_("the compressed image has another size than the header says"),
    N_("the compressed image has another bit depth than the header says"),
    N_("the amount of pixel data differs from what the header says"),
    N_("Rows or Columns is zero"),
    N_("unsupported bit depth"),
    N_("unsupported pixel encoding"),
    N_("the image is too large"),
    N_("implausible pixel shape"),
    N_("the film holds nothing but padding"),
    N_("{keyword} is missing or damaged"),
    N_("the file cannot be read ({error})"),
    N_("the pixel data cannot be read ({error})"),
    N_("the decoder stopped: {reason}"),
    N_("unintelligible answer"),
    N_("no answer in time"),
    N_("it closed its output"),
    # Work.
    N_("analysis failed"),
    N_("analysis failed: {reason}"),
    N_("conclusion failed: {reason}"),
    N_("the stored file is missing"),
    N_("unexpected {error}"),
    N_("the process ended without a result {count} times"),
    N_("the process ended without a word; go on with --resume"),
    N_("out of memory"),
    N_("cancelled by {name}"),
    N_("superseded"),
    N_("the correction was taken back"),
    # Conclusions.
    N_("{unread} of {total} films not analysed: {reasons}"),
    N_("corrected by a radiologist; the AI's answer was: {reason}"),
    N_("no significant finding"),
    N_("significant finding"),
    N_("not analysed"),
    # Sending.
    N_("{peer} has no address: {error}"),
    N_("{peer} rejected the association: {error}"),
    N_("{peer} did not answer, or ended the association before it was established"),
    N_("{peer} did not answer C-ECHO"),
    N_("{peer} accepted no presentation context for this object"),
    N_("{peer} ended the association"),
    N_("{peer} did not answer; whether it stored the object is unknown"),
    N_("{peer} answered {status}"),
    N_("the association ended before storage commitment was requested"),
    N_("the association ended before storage commitment was answered"),
    N_("the destination did not commit to storing it"),
    # Last, because they fit much: what the gate quotes of the header.
    N_("modality {value}"),
    N_("body part {value}"),
    N_("view {value}"),
)


def reason_words(say: Say, reason: str | None) -> str:
    """A recorded reason in the viewer's language, if it is one of the node's own.

    Parameters
    ----------
    say : callable
        Translates a sentence of the catalogue, with values.
    reason : str, optional
        As it stands in the database.
    """
    return _REASONS.words(say, reason)
