"""UIDs: the check for received ones and the rule for our own."""

import re
import uuid
from collections.abc import Sequence

# Namespace of all result UIDs. Changing it would give old results new identities.
RESULT_NAMESPACE = uuid.UUID("6a1f43de-5d0a-5f1c-9a5e-3a1d8b1c7f52")
IMPLEMENTATION_CLASS_UID = "2.25.241570983426207106174404183291713409874"
IMPLEMENTATION_VERSION_NAME = "CLEARFILM_0_1"

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_valid_uid(value: str) -> bool:
    """Whether a received text can serve as a UID.

    Leading zeros of a component are accepted, since they occur (PS3.5 9.1 forbids them); anything that
    is not digits and single dots is not, so that no UID can be a path, a command or markup.

    Parameters
    ----------
    value : str
        Without trailing padding.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def result_uid(role: str, inputs: Sequence[str], bundle_digest: str, iod: str, revision: int) -> str:
    """The UID of a result: same inputs and model, same UID.

    Parameters
    ----------
    role : str
        What is named: "instance", "series", "tracking", "device", ...
    inputs : sequence of str
        SHA-256 digests of the films' data sets; their order does not matter.
    bundle_digest : str
        Digest of the model bundle.
    iod : str
        SOP Class UID of the result; a result that exists in several IODs has one UID in each.
    revision : int
        Revision of the study's conclusion, from 1.

    Returns
    -------
    str
        ``2.25.`` and the decimal integer of a UUIDv5 (PS3.5 B.2), at most 44 characters.
    """
    key = "|".join([role, *sorted(inputs), bundle_digest, iod, str(revision)])
    return f"2.25.{uuid.uuid5(RESULT_NAMESPACE, key).int}"
