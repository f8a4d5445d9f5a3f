"""Alerts as sentences in the viewer's language."""

from clearfilm.alert_words import ADVICE, SENTENCES
from db.alerts import Alert, AlertKind
from db.switches import Stage
from worklist.page import PageMaker
from worklist.templates import N_

STAGES = {
    Stage.RECEIVE: N_("Receiving"),
    Stage.ANALYSE: N_("Analysing"),
    Stage.SEND: N_("Sending"),
}
KINDS = {
    "storescp": N_("Listener"),
    "worker": N_("Worker"),
    "deliver": N_("Delivery"),
    "schedule": N_("Scheduler"),
    "worklist": N_("Web pages"),
}


def sentence(page: PageMaker, alert: Alert) -> str:
    """What is wrong."""
    return page.say(SENTENCES[alert.kind], **{"subject": _subject(page, alert), **alert.facts})


def advice(page: PageMaker, alert: Alert) -> str:
    """What to do about it."""
    return page.say(ADVICE[alert.kind])


def _subject(page: PageMaker, alert: Alert) -> str:
    if alert.kind is AlertKind.PROCESS_DOWN and alert.subject in KINDS:
        return page.say(KINDS[alert.subject])
    if alert.kind is AlertKind.PAUSED and alert.subject in set(Stage):
        return page.say(STAGES[Stage(alert.subject)])
    return alert.subject
