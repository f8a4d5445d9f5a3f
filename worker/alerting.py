"""Alerts: looks for what an administrator should know, and sends it by e-mail and webhook. Nothing about patients."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import shutil
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clearfilm import __version__
from clearfilm.alert_settings import Mail, Webhook
from clearfilm.alert_words import ADVICE, SENTENCES
from clearfilm.config import Config
from clearfilm.counts import Counted, counted
from clearfilm.forecast import days_left
from clearfilm.silence import LEARNED, missed_hours
from db import alerts, associations, operations, policies, processes, senders, switches
from db.alerts import Alert, AlertKind, Finding, Way
from db.models import Job, JobKind, JobState
from db.session import Database
from db.switches import Stage

logger = logging.getLogger(__name__)

WATCHED = ("storescp", "worker", "deliver", "worklist")
# A process may be away for this long while it is restarted.
GRACE = timedelta(seconds=60)
SILENCE_PERIOD = timedelta(minutes=5)
SAMPLE_PERIOD, SAMPLES_KEPT = timedelta(hours=1), timedelta(days=60)
FORECAST_FROM = timedelta(days=7)
# Tries in vain, of all that waits for a destination together, after which it is worth an alert: about half a
# minute of backoff. Each try takes another study, so that no single one has many when a hundred wait.
TRIES = 3
# What could not be sent for so long is not sent any more; the console shows it all the same.
SEND_FOR = timedelta(hours=24)
SEND_SECONDS = 10


class Alarm:
    """Looks and sends; one call of `turn` is one round.

    Parameters
    ----------
    config : Config
        The whole configuration.
    database : Database
        Of this process.
    backups : str
        Folder of the backups in the data folder.
    """

    def __init__(self, config: Config, database: Database, backups: str) -> None:
        self._config = config
        self._settings = config.alerts
        self._database = database
        self._backups = config.data_folder / backups
        self._missing: dict[str, datetime] = {}
        self._silent: tuple[datetime, list[Finding]] | None = None

    def turn(self) -> None:
        """Look once, and send what is new."""
        self.look()
        self.send()

    def look(self) -> None:
        """Open and close alerts by what is found now."""
        usage = shutil.disk_usage(self._config.data_folder)
        with self._database.read() as session:
            now = self._database.now(session)
            findings = list(self._findings(session, usage.free, usage.total, now))
        with self._database.begin() as session:
            alerts.sample_disk(session, usage.free, now=now, period=SAMPLE_PERIOD, kept=SAMPLES_KEPT)
            opened = alerts.update(session, findings, now=now)
        for alert in opened:
            logger.warning("alert", extra={"kind": alert.kind.value, "subject": alert.subject, "facts": alert.facts})

    def _findings(self, session: Session, free: int, total: int, now: datetime) -> Iterator[Finding]:
        paused = switches.paused(session)
        if Stage.RECEIVE not in paused:
            yield from self._silent_senders(session, now)
        yield from self._work(session, now)
        yield from self._destinations(session)
        yield from self._disk(session, free, total, now)
        yield from self._processes(session, now)
        yield from self._backup()
        for stage, switch in paused.items():
            hours = (now - switch.since) / timedelta(hours=1)
            if hours > self._settings.paused_hours:
                yield Finding(AlertKind.PAUSED, stage.value, {"hours": int(hours)})
        steps = policies.history(session)
        if steps and steps[-1].actor == "schedule":
            yield Finding(AlertKind.POLICY, "", {"reason": steps[-1].reason})

    def _silent_senders(self, session: Session, now: datetime) -> list[Finding]:
        """Learned anew every few minutes: it reads what came in eight weeks."""
        if not self._settings.silent_hours:
            return []
        if self._silent is None or now - self._silent[0] >= SILENCE_PERIOD:
            names = [entry.name for entry in self._config.senders]
            names += [entry.name for entry in associations.trusted(session)]
            self._silent = now, [found for name in names if (found := self._silence(session, name, now))]
        return self._silent[1]

    def _silence(self, session: Session, name: str, now: datetime) -> Finding | None:
        heard = senders.hours_heard(session, name, now - LEARNED)
        missed = missed_hours(heard, now)
        if missed is None or missed < self._settings.silent_hours:
            return None
        hours = int((now - max(heard)) / timedelta(hours=1))
        return Finding(AlertKind.SILENT_SENDER, name, {"hours": hours, "missed": round(missed, 1)})

    def _work(self, session: Session, now: datetime) -> Iterator[Finding]:
        oldest = operations.oldest_open(session)
        minutes = (now - oldest) / timedelta(minutes=1) if oldest else 0.0
        if minutes > self._settings.stuck_minutes:
            yield Finding(AlertKind.STUCK, "", {"minutes": int(minutes)})
        failed = operations.sizes(session)["failed"]
        if failed:
            yield Finding(AlertKind.FAILURES, "", {"count": failed})

    def _destinations(self, session: Session) -> Iterator[Finding]:
        rows = session.execute(
            select(Job.destination, func.max(Job.last_error))
            .where(Job.kind == JobKind.DELIVER, Job.state == JobState.QUEUED, Job.last_error.is_not(None))
            .group_by(Job.destination)
            .having(func.sum(Job.retries) >= TRIES)
        )
        for destination, error in rows:
            yield Finding(AlertKind.DESTINATION, destination, {"error": error})

    def _disk(self, session: Session, free: int, total: int, now: datetime) -> Iterator[Finding]:
        mark = self._config.disk.low_water(total)
        if free < mark:
            yield Finding(AlertKind.DISK_LOW, "", {"free": round(free / 1e9, 1), "mark": round(mark / 1e9, 1)})
            return
        left = days_left(alerts.disk_samples(session, now - FORECAST_FROM), mark)
        if left is not None and left < self._settings.disk_days:
            yield Finding(AlertKind.DISK_FORECAST, "", {"days": round(left)})

    def _processes(self, session: Session, now: datetime) -> Iterator[Finding]:
        alive = {one.kind for one in processes.seen(session, now=now) if not one.is_silent}
        for kind in WATCHED:
            if kind in alive:
                self._missing.pop(kind, None)
            elif now - self._missing.setdefault(kind, now) >= GRACE:
                yield Finding(AlertKind.PROCESS_DOWN, kind)

    def _backup(self) -> Iterator[Finding]:
        """Nothing to say before the first one: the schedule makes it within an hour."""
        if not self._config.database.backups or not self._database.is_sqlite:
            return
        newest = max((path.stat().st_mtime for path in self._backups.glob("clearfilm-*.sqlite")), default=None)
        if newest is not None and (hours := (time.time() - newest) / 3600) > self._settings.backup_hours:
            yield Finding(AlertKind.BACKUP, "", {"hours": int(hours)})

    def send(self) -> None:
        """Send what has not gone out; after a failure the rest waits for the next round."""
        mail, webhook = self._settings.mail, self._settings.webhook
        if mail.host is not None:
            self._send_by(Way.MAIL, lambda alert: send_mail(mail, self._message(alert)))
        if webhook.url is not None:
            self._send_by(Way.POST, lambda alert: post(webhook, self._body(alert)))

    def _send_by(self, way: Way, hand_over: Callable[[Alert], None]) -> None:
        with self._database.read() as session:
            waiting = alerts.unsent(session, way, since=self._database.now(session) - SEND_FOR)
        for alert in waiting:
            trouble = None
            try:
                hand_over(alert)
            except (OSError, smtplib.SMTPException, http.client.HTTPException, ValueError) as error:
                trouble = f"{type(error).__name__}: {error}"[:300]
                logger.error("alert not sent", extra={"alert": alert.id, "trouble": f"{way}: {trouble}"})
            with self._database.begin() as session:
                alerts.note_sending(session, alert, way, trouble, now=self._database.now(session))
            if trouble is not None:
                return

    def _message(self, alert: Alert) -> EmailMessage:
        text = words(alert)
        message = EmailMessage()
        # One line: what a peer answered may be part of it.
        message["Subject"] = " ".join(f"[{self._config.node.ae_title}] {text}".split())[:200]
        message["From"] = self._settings.mail.sender
        message["To"] = ", ".join(self._settings.mail.recipients)
        message["Date"] = formatdate((alert.closed_at or alert.opened_at).timestamp())
        message["Auto-Submitted"] = "auto-generated"
        # Mail programs put the end beside its beginning.
        name, domain = f"{alert.id}.{alert.opened_at.timestamp():.0f}", self._settings.mail.sender.partition("@")[2]
        began = f"<clearfilm-alert.{name}@{domain}>"
        if alert.closed_at is None:
            message["Message-ID"] = began
            lines = [text, "", ADVICE[alert.kind], "", f"Since {_minute(alert.opened_at)}."]
        else:
            message["Message-ID"] = f"<clearfilm-alert-over.{name}@{domain}>"
            message["In-Reply-To"] = message["References"] = began
            length = _length(alert.closed_at - alert.opened_at)
            lines = [text, "", f"From {_minute(alert.opened_at)} to {_minute(alert.closed_at)}: {length}."]
        if self._settings.link:
            lines.append(f"{self._settings.link.rstrip('/')}/admin/alerts")
        message.set_content("\n".join(lines) + "\n")
        return message

    def _body(self, alert: Alert) -> dict[str, Any]:
        closed_at = alert.closed_at
        return {
            "node": self._config.node.ae_title,
            "version": __version__,
            "alert": alert.id,
            "state": "over" if closed_at else "open",
            "kind": alert.kind.value,
            "subject": alert.subject,
            "facts": alert.facts,
            "text": words(alert),
            "advice": None if closed_at else ADVICE[alert.kind],
            "opened_at": alert.opened_at.isoformat(),
            "closed_at": closed_at.isoformat() if closed_at else None,
            "seconds": round((closed_at - alert.opened_at).total_seconds()) if closed_at else None,
            "link": f"{self._settings.link.rstrip('/')}/admin/alerts" if self._settings.link else None,
        }


def words(alert: Alert) -> str:
    """The alert as an English sentence."""
    sentence, values = SENTENCES[alert.kind], {"subject": alert.subject, **alert.facts}
    text = sentence.english(**values) if isinstance(sentence, Counted) else sentence.format(**values)
    return f"Over: {text}" if alert.closed_at else text


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _length(length: timedelta) -> str:
    """Two units at most: `40 s`, `12 min`, `3 h 5 min`, `2 days 4 h`."""
    seconds = round(length.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60 % 60, seconds // 3600 % 24
    if seconds < 3600:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if seconds < 86_400 else f"{counted(seconds // 86_400, 'day')} {hours} h"


def send_mail(settings: Mail, message: EmailMessage) -> None:
    """Hand a message to the SMTP server.

    Raises
    ------
    OSError, smtplib.SMTPException
        If it does not take it, or the password cannot be read.
    """
    assert settings.host is not None
    trust = ssl.create_default_context()
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=SEND_SECONDS, context=trust)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=SEND_SECONDS)
    with server:
        if settings.security == "starttls":
            server.starttls(context=trust)
        if settings.user is not None and settings.password_file is not None:
            server.login(settings.user, _secret(settings.password_file).decode())
        server.send_message(message)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The body goes to the configured address only."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(settings: Webhook, body: dict[str, Any]) -> None:
    """POST JSON; with a secret, `X-Clearfilm-Signature` is ``sha256=`` and the HMAC of timestamp, dot and body.

    Raises
    ------
    OSError, http.client.HTTPException, ValueError
        If it was not answered with 2xx, or the secret cannot be read.
    """
    assert settings.url is not None
    content = json.dumps(body, sort_keys=True).encode()
    headers = {"Content-Type": "application/json", "User-Agent": f"clearfilm/{__version__}"}
    if settings.secret_file is not None:
        stamp = str(int(time.time()))
        signature = hmac.new(_secret(settings.secret_file), f"{stamp}.".encode() + content, hashlib.sha256)
        headers |= {"X-Clearfilm-Timestamp": stamp, "X-Clearfilm-Signature": f"sha256={signature.hexdigest()}"}
    # The scheme is http or https: the configuration takes no other.
    request = urllib.request.Request(settings.url, content, headers, method="POST")  # noqa: S310
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=SEND_SECONDS):
        pass


def _secret(path: Path) -> bytes:
    content = path.read_bytes().strip()
    if not content:
        raise ValueError(f"{path} is empty")
    return content
