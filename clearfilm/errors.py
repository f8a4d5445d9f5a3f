"""Every error that Clearfilm raises on purpose.

ClearfilmError
├── ConfigurationError          exit 78: the admin edits config.yaml
├── UsageError                  exit 2: the command was called wrongly
├── StartupError                exit 1: port in use, folder not writable, database damaged
├── BundleError                 a model bundle that must not be used
├── PromotionError              a model that cannot become active, or go back, like this
├── StorageError                the disk did not take the bytes
│   └── OutOfSpace              below the low-water mark (C-STORE 0xA700)
├── RefusedObject               a received object that is not kept; carries the C-STORE status
├── NotAnalysable               a stored film that gets no decision; carries the reason
├── RefusedReport               a radiologist's report that is not taken; carries the reason
├── PolicyError                 a step that the triage policy does not allow
├── StaleAnswer                 a verdict about an answer that is no longer the study's
├── TrainingError               a cohort or a training run that cannot be used or go on, with counts
├── LostLease                   another worker owns the job now: publish nothing
└── DeliveryError
    ├── PeerUnreachable         retryable: no association
    ├── PeerBusy                retryable: 0xA7xx, transient rejection, answer lost
    └── PeerRefused             permanent: 0xA9xx, 0xCxxx, 0x0122, no common presentation context

`retryable` is all that a loop looks at to decide whether another try is worthwhile.
"""

from typing import ClassVar


class ClearfilmError(Exception):
    """Base of all our errors. The message says what is wrong, where, and what to do; never patient data."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigurationError(ClearfilmError):
    """The configuration is not usable; the message lists every fault with its path."""

    exit_code = 78


class UsageError(ClearfilmError):
    """A command was called with arguments that make no sense."""

    exit_code = 2


class StartupError(ClearfilmError):
    """A process cannot start: port in use, folder not writable, database damaged or too new."""


class BundleError(ClearfilmError):
    """A model bundle is missing, altered, incomplete or made for another preprocessing."""


class PromotionError(ClearfilmError):
    """A model cannot become the active one like this; the message says what is missing."""


class StorageError(ClearfilmError):
    """Bytes could not be made durable."""

    retryable = True


class OutOfSpace(StorageError):
    """Free space is below the configured low-water mark."""


class RefusedObject(ClearfilmError):
    """A received object that is refused; nothing of it is kept.

    Parameters
    ----------
    status : int
        C-STORE response status (PS3.4 B.2.3, PS3.7 C).
    reason : str
        What is wrong, without patient data; also sent as Error Comment (0000,0902).
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class NotAnalysable(ClearfilmError):
    """A stored film gets no decision, and this is why.

    Parameters
    ----------
    reason : str
        Plain words, shown after "not analysed: ".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefusedReport(ClearfilmError):
    """A report that is not taken; the rest of the file or connection goes on. Never with text of the report."""


class PolicyError(ClearfilmError):
    """A step that the triage policy does not allow, or a device that it does not know."""


class StaleAnswer(ClearfilmError):
    """A verdict about an answer that the study does not have, or not any more; nothing of it is kept."""


class TrainingError(ClearfilmError):
    """A cohort or a training run cannot be used or cannot go on; the message gives counts and what to do."""


class LostLease(ClearfilmError):
    """The job's lease ran out and another worker may own it; nothing may be published under it."""


class DeliveryError(ClearfilmError):
    """A result did not reach its destination.

    Parameters
    ----------
    message : str
        What happened, for the admin.
    status : int or None
        DICOM status of the peer's answer, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class PeerUnreachable(DeliveryError):
    """No association with the peer: refused, timeout, rejected."""

    retryable = True


class PeerBusy(DeliveryError):
    """The peer cannot take the object now, or its answer was lost."""

    retryable = True


class PeerRefused(DeliveryError):
    """The peer will not take this object as it is."""
