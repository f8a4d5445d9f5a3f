"""Events of the audit trail in the viewer's language; in the record and in exports they stay English."""

from __future__ import annotations

from typing import Final

from worklist.recorded import Say
from worklist.templates import LANGUAGES, N_, Templates

# All that this version records, in whatever process; a test finds those that are missing.
EVENTS: Final = {
    N_("alert acknowledged"),
    N_("alerts shown"),
    N_("association denied"),
    N_("audit trail exported"),
    N_("audit trail shown"),
    N_("audit trail verified"),
    N_("blind study shown after its longest time"),
    N_("caller looked at"),
    N_("callers shown"),
    N_("cancellation taken back"),
    N_("case shown"),
    N_("configuration shown"),
    N_("configuration tried"),
    N_("destination tried"),
    N_("destinations shown"),
    N_("device release withdrawn"),
    N_("device released"),
    N_("device signed for release"),
    N_("evaluation shown"),
    N_("film received again with other bytes"),
    N_("film shown"),
    N_("first administrator made"),
    N_("logged in"),
    N_("logged out"),
    N_("login failed"),
    N_("lost film restored"),
    N_("model activated"),
    N_("model added"),
    N_("model evaluated"),
    N_("model promotion blocked"),
    N_("model promotion signed"),
    N_("model promotion withdrawn"),
    N_("model rolled back"),
    N_("model shadow ended"),
    N_("model shadow started"),
    N_("model shown"),
    N_("models shown"),
    N_("node shown"),
    N_("operating point proposed"),
    N_("page denied"),
    N_("password changed"),
    N_("policy shown"),
    N_("policy stage changed"),
    N_("policy stage signed"),
    N_("policy stage withdrawn"),
    N_("present password wrong"),
    N_("priority changed"),
    N_("queues shown"),
    N_("results sent again"),
    N_("retraining ended"),
    N_("retraining resumed"),
    N_("retraining started"),
    N_("role changed"),
    N_("sender trusted"),
    N_("sender trusted no more"),
    N_("stage paused"),
    N_("stage resumed"),
    N_("stored film lost"),
    N_("studies to be concluded again"),
    N_("study deleted by retention"),
    N_("study opened in the PACS viewer"),
    N_("study put back by a report"),
    N_("study returned after its longest wait"),
    N_("study shown in the list"),
    N_("training died"),
    N_("training failed"),
    N_("training finished"),
    N_("training started"),
    N_("tried again"),
    N_("user added"),
    N_("user disabled"),
    N_("user enabled"),
    N_("user linked"),
    N_("users shown"),
    N_("verdict given"),
    N_("verdict taken back"),
    N_("view removed"),
    N_("view saved"),
    N_("wall shown"),
    N_("work cancelled"),
    N_("worklist exported"),
    N_("worklist shown"),
}


def event_words(say: Say, event: str) -> str:
    """An event in the viewer's language; one of another version as it was recorded."""
    return say(event) if event in EVENTS else event


def event_of(templates: Templates, text: str) -> str:
    """The recorded event of a text: people search for the words that the page shows, in either language."""
    told = {templates.translate(language, event): event for language in LANGUAGES for event in EVENTS}
    return told.get(text.strip(), text)
