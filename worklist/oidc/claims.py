"""What the provider's claims mean here: a person, a name, a role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearfilm.errors import UsageError
from clearfilm.oidc_settings import GroupsOfRoles, Oidc
from db.accounts import Identity, Role
from worklist import passwords
from worklist.oidc.errors import LoginRefused, Refusal

# Of several roles the first counts.
_ORDER = (Role.ADMIN, Role.RADIOLOGIST, Role.READER, Role.AUDITOR)


@dataclass(frozen=True)
class Person:
    """Somebody whom the provider vouches for."""

    identity: Identity
    name: str | None  # as it is kept; None: the provider tells none that can be
    role: Role | None  # None: in no group that has one
    are_groups_left_out: bool = False


def person(claims: Mapping[str, Any], section: Oidc) -> Person:
    """Who it is. Claims of names and groups may be anything: they are taken as absent then."""
    found = groups(claims, section.groups_claim)
    return Person(
        identity=Identity(claims["iss"], claims["sub"]),
        name=_name(look_up(claims, section.name_claim)),
        role=role_of(found, section.groups),
        are_groups_left_out=not found and _is_overage(claims, section.groups_claim),
    )


def has(claims: Mapping[str, Any], section: Oidc) -> bool:
    """Whether these claims tell name and groups; otherwise it is worthwhile to ask for more."""
    return all(look_up(claims, path) is not None for path in (section.name_claim, section.groups_claim))


def look_up(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, which may have dots in it, or by a path through objects; None: there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def groups(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """Names of groups or roles; AD FS sends a plain string when there is one."""
    found = look_up(claims, path)
    entries = found if isinstance(found, list) else [found]
    return frozenset(entry for entry in entries if isinstance(entry, str))


def role_of(names: frozenset[str], mapping: GroupsOfRoles) -> Role | None:
    """The first role, in the order of the configuration, that one of the groups has."""
    return next((role for role in _ORDER if names.intersection(getattr(mapping, role.value))), None)


def require_name(who: Person) -> str:
    """The name of a new user. Raises LoginRefused if there is none that can be."""
    if who.name is None:
        raise LoginRefused(Refusal.NAME, who.identity.subject)
    return who.name


def _name(value: object) -> str | None:
    try:
        return passwords.check_name(value) if isinstance(value, str) else None
    except UsageError:
        return None


def _is_overage(claims: Mapping[str, Any], path: str) -> bool:
    """Entra ID names a place to ask instead, when somebody is in more than 200 groups."""
    elsewhere = claims.get("_claim_names")
    return claims.get("hasgroups") is True or (isinstance(elsewhere, Mapping) and path in elsewhere)
