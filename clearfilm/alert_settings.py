"""Section `alerts` of the configuration."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clearfilm.section import Section

Recipient = Annotated[str, Field(pattern=r"^[^@\s<>,;\"]+@[^@\s<>,;\"]+$", max_length=254)]


class Mail(Section):
    """Alerts by e-mail; never with anything about patients."""

    host: str | None = None
    """SMTP server; null: none is sent."""
    port: int = Field(25, ge=1, le=65535)
    """TCP port."""
    security: Literal["none", "starttls", "tls"] = "none"
    """none only to a server in the house."""
    user: str | None = None
    """For logging in; null: without."""
    password_file: Path | None = None
    """File with the password."""
    sender: Recipient = "clearfilm@localhost"
    """From."""
    recipients: tuple[Recipient, ...] = ()
    """To."""

    @model_validator(mode="after")
    def _is_whole(self) -> "Mail":
        if self.host is not None and not self.recipients:
            raise ValueError("recipients: name at least one, or set host to null")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.user is not None and self.security == "none":
            raise ValueError("security: a password goes over starttls or tls only")
        return self


class Webhook(Section):
    """Alerts as JSON by HTTP POST."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Where to; null: none is sent."""
    secret_file: Path | None = None
    """File with the key of the signature (HMAC-SHA256); null: not signed."""


class Alerts(Section):
    """What an administrator is told without looking; evaluated twice a minute by the schedule."""

    silent_hours: float = Field(3, ge=0, le=168)
    """A sender is silent when it missed so many of the hours in which it usually sends; 0: not watched."""
    stuck_minutes: float = Field(30, gt=0)
    """The oldest work waits for longer."""
    disk_days: float = Field(7, ge=0)
    """The disk will be full in fewer days; 0: not watched."""
    backup_hours: float = Field(48, gt=0)
    """The newest backup of the database is older (SQLite)."""
    paused_hours: float = Field(4, gt=0)
    """A pause lasts for longer."""
    link: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Address of the web pages, for messages."""
    mail: Mail = Mail()
    webhook: Webhook = Webhook()
