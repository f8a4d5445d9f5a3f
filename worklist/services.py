"""What every page works with: configuration, database, events, templates, and the clock."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from clearfilm.config import Config
from clearfilm.dicom.full_depth import FullDepth
from db.accounts import Limits
from db.session import Database
from worklist.denials import Denials
from worklist.events import Hub
from worklist.templates import Templates

if TYPE_CHECKING:
    from worklist.oidc.provider import Provider


@dataclass(frozen=True)
class Services:
    """Made once in each process."""

    config: Config
    database: Database
    hub: Hub
    denials: Denials
    templates: Templates
    films: FullDepth
    config_path: Path | None = None  # the file that `config` was read from
    provider: "Provider | None" = None  # of logins
    # Checking a password takes long on purpose. Who waits for that holds no thread that pages need.
    password_checks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))

    @property
    def limits(self) -> Limits:
        """How long logins hold."""
        section = self.config.worklist
        return Limits(timedelta(minutes=section.idle_minutes), timedelta(hours=section.login_hours))


def of(request: Request) -> Services:
    """The services of the application that got this request."""
    found: Services = request.app.state.services
    return found


NodeServices = Annotated[Services, Depends(of)]
