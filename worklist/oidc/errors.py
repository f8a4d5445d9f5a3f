"""Why somebody does not get in by way of the provider."""

import enum


class Refusal(enum.StrEnum):
    """Reasons, as they stand in the audit trail."""

    PROVIDER = "the provider refused"
    TRIP = "begun elsewhere or too long ago"
    CODE = "the provider did not take its code"
    TOKEN = "the provider's answer is not to be trusted"  # noqa: S105 - a reason
    NAME = "no usable name"
    GROUPS_LEFT_OUT = "groups left out by the provider"
    NO_ROLE = "in no group with a role"
    NAME_TAKEN = "name of another user"
    DISABLED = "user disabled"


class LoginRefused(Exception):
    """This person does not get in.

    Parameters
    ----------
    refusal : Refusal
        What the person hears, and the audit trail.
    detail : str
        What exactly, for the audit trail: never what somebody typed.
    actor : str
        The user, if it is known.
    """

    def __init__(self, refusal: Refusal, detail: str = "", *, actor: str = "unknown name") -> None:
        super().__init__(f"{refusal}: {detail}" if detail else refusal)
        self.refusal = refusal
        self.detail = detail
        self.actor = actor


class ProviderAway(Exception):
    """The provider does not answer, or not as a provider does; another try is worthwhile. The message is for admins."""
