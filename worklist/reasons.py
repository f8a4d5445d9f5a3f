"""Why films get no answer: the usual reasons of the gate, for the catalogues. Others are shown as recorded."""

from typing import Final

from worklist.page import PageMaker
from worklist.templates import N_

_KNOWN: Final = frozenset(
    {
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
        N_("body part is not the chest"),
        N_("body part is not stated"),
        N_("not a frontal view"),
        N_("the view is not stated"),
        N_("no pixel data"),
        N_("the compressed pixel data are cut off"),
        N_("the compressed pixel data are damaged"),
    }
)


def reason_words(page: PageMaker, reason: str | None) -> str:
    """A recorded reason in the viewer's language, if it is one of the usual ones."""
    return page.say(reason) if reason in _KNOWN else reason or ""
