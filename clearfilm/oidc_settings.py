"""Section `worklist.oidc` of the configuration: logging in at the hospital's own provider (OpenID Connect)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from clearfilm.section import Section


def is_private_enough(url: str) -> bool:
    """Whether secrets may travel to this URL: encrypted, or not beyond this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("is no URL") from None
    if not (parts.hostname and has_port and is_private_enough(value) and value.isascii() and value.isprintable()):
        raise ValueError("must be an https:// URL; http:// only for this machine (127.0.0.1, localhost)")
    if parts.username is not None or parts.query or parts.fragment or " " in value:
        raise ValueError("takes no user, query or fragment")
    return parts


def _check_issuer(value: str) -> str:
    _split(value)
    return value


def _check_origin(value: str) -> str:
    if _split(value).path not in ("", "/"):
        raise ValueError("is scheme, host and port only: the pages have no prefix")
    return value.rstrip("/")


Word = Annotated[str, Field(min_length=1, max_length=255)]
Groups = Annotated[tuple[Word, ...], Field(max_length=100)]


class GroupsOfRoles(Section):
    """Which of the provider's groups or roles have which role here."""

    admin: Groups = ()
    """A user who is in groups of several roles gets the first in this order."""
    radiologist: Groups = ()
    """Compared letter by letter, as the provider sends them."""
    reader: Groups = ()
    """Nobody logs in who is in none of them."""
    auditor: Groups = ()
    """Sees no patients."""


class Oidc(Section):
    """Logging in by OpenID Connect: authorization code with PKCE."""

    issuer: Annotated[str, Field(max_length=255), AfterValidator(_check_issuer)] | None = None
    """Exactly as the provider writes it in its discovery document; null: local users only."""
    public_url: Annotated[str, AfterValidator(_check_origin)] | None = None
    """Address of the web pages as browsers know it; /login/oidc/callback below it is registered at the provider."""
    client_id: Word | None = None
    """What the provider calls this node."""
    client_secret_file: Path | None = None
    """File with the secret; null: a public client."""
    scopes: tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")], ...] = ("openid", "profile")
    """What is asked for; openid is among them."""
    name_claim: Word = "preferred_username"
    """Name of a new user; letters, digits and . _ - @ only."""
    groups_claim: Word = "groups"
    """Where the groups or roles are; a path such as realm_access.roles."""
    groups: GroupsOfRoles = GroupsOfRoles()
    label: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    """What users call the provider, for the button; null: "single sign-on"."""
    prompt: Literal["login", "select_account"] | None = None
    """For workstations that several people share: login has the provider ask anew each time; null: it decides."""
    log_out_at_provider: bool = True
    """Logging out here also logs out there, where the provider offers it."""
    local_logins: Literal["everybody", "admins"] = "everybody"
    """Who may still log in with a password of this node."""
    ca_file: Path | None = None
    """PEM file with the authority that signed the provider's certificate; null: those that the system trusts."""
    timeout_seconds: float = Field(5, gt=0, le=60)
    """Longest wait for one answer of the provider."""

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends browsers back to; registered there, letter by letter."""
        return f"{self.public_url}/login/oidc/callback"

    @model_validator(mode="after")
    def _is_whole(self) -> Oidc:
        if self.issuer is None:
            if self.local_logins == "admins":
                raise ValueError("local_logins: without an issuer only everybody makes sense")
            return self
        missing = [key for key in ("public_url", "client_id") if getattr(self, key) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)}: needed with issuer")
        if "openid" not in self.scopes:
            raise ValueError("scopes: must have openid")
        if not any(getattr(self.groups, role) for role in GroupsOfRoles.model_fields):
            raise ValueError("groups: name at least one group, or nobody could log in")
        return self
