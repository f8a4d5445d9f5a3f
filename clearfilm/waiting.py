"""How long studies wait for a reader when some of them are read later: the queue, replayed exactly."""

import heapq
import math
from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray


def waits(
    arrived_seconds: ArrayLike,
    service_seconds: ArrayLike,
    lowered: ArrayLike,
    *,
    readers: int = 1,
    limit_seconds: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Time until reading starts, for each study.

    Identical readers take one study after the other and never break one off. A free reader takes the study
    that arrived first of those that are not lowered; if there is none, the lowered one that arrived first.
    A lowered study that has waited for its limit counts as not lowered from then on, at its place by arrival.

    Let F be a study's wait if all are read in order of arrival, s the longest reading and R the number of
    readers. Then a study that is not lowered waits at most F + 2 (1 - 1/R) s, and a lowered one with the
    limit L at most F + L + (3 - 2/R) s; for one reader F, and F + L + s. The last s cannot be spared: when
    the study returns, the reader may just have begun with one that arrived later.

    Reason: two orders of reading that leave no reader idle while a study waits differ in unfinished work
    by (R - 1) s at most, because the one with more has all readers busy until it last had an idle one,
    and (R - 1) s at most were left then. In order of arrival the work that a study finds is at most
    R F + (R - 1) s. Only work that was there when it arrived, and the remainders of at most R
    readings, is done between its return and its start, by R readers.

    Parameters
    ----------
    arrived_seconds : array_like
        Shape ``(n,)``, finite, in any order; of equal ones the first counts as earlier.
    service_seconds : array_like
        Shape ``(n,)`` or one number: time that reading takes, not negative.
    lowered : array_like
        Shape ``(n,)`` or one value, bool: read after all others.
    readers : int
        At least 1.
    limit_seconds : array_like, optional
        Shape ``(n,)`` or one number, not negative, may be infinite: after this wait a lowered study returns
        to its place. None: never.

    Returns
    -------
    numpy.ndarray
        Shape ``(n,)``, float64, seconds, in the order of the arguments.

    Raises
    ------
    ValueError
        If an argument is out of range, or the shapes do not fit.
    """
    arrived = np.asarray(arrived_seconds, dtype=np.float64)
    service = np.broadcast_to(np.asarray(service_seconds, dtype=np.float64), arrived.shape)
    limit = np.broadcast_to(np.asarray(math.inf if limit_seconds is None else limit_seconds, np.float64), arrived.shape)
    later = np.broadcast_to(np.asarray(lowered, dtype=np.bool_), arrived.shape)
    _check(arrived, service, limit, readers)
    order = np.argsort(arrived, kind="stable")
    returns = np.where(later, arrived + limit, -math.inf)
    started = _start_times(arrived[order].tolist(), service[order].tolist(), returns[order].tolist(), readers)
    result = np.empty_like(arrived)
    result[order] = started - arrived[order]
    return result


def _check(
    arrived: NDArray[np.float64], service: NDArray[np.float64], limit: NDArray[np.float64], readers: int
) -> None:
    if arrived.ndim != 1 or not np.isfinite(arrived).all():
        raise ValueError("arrival times must be a list of finite numbers")
    if not (np.isfinite(service) & (service >= 0)).all():
        raise ValueError("reading times must be finite and not negative")
    if not (limit >= 0).all():
        raise ValueError("limits must not be negative")
    if readers < 1:
        raise ValueError("there must be at least one reader")


class _Waiting:
    """The studies that wait, each known by its rank in order of arrival.

    Parameters
    ----------
    returns : list of float
        By rank: when the study counts as not lowered; minus infinity: from the start.
    """

    def __init__(self, returns: list[float]) -> None:
        self._returns = returns
        self._usual: list[int] = []  # heap
        self._later: deque[int] = deque()  # those that have left it in another way are passed over
        self._returning: list[tuple[float, int]] = []  # heap; those that have been started are passed over
        self._left = bytearray(len(returns))
        self._number = 0

    def __bool__(self) -> bool:
        return self._number > 0

    def add(self, rank: int) -> None:
        """A study arrives; ranks come in ascending order."""
        self._number += 1
        returns = self._returns[rank]
        if returns == -math.inf:
            heapq.heappush(self._usual, rank)
            return
        self._later.append(rank)
        if returns < math.inf:
            heapq.heappush(self._returning, (returns, rank))

    def take(self, now: float) -> int:
        """The study to be read next; one must wait."""
        self._number -= 1
        while self._returning and self._returning[0][0] <= now:
            _, rank = heapq.heappop(self._returning)
            if not self._left[rank]:
                self._left[rank] = True
                heapq.heappush(self._usual, rank)
        if self._usual:
            return heapq.heappop(self._usual)
        while self._left[rank := self._later.popleft()]:
            pass
        self._left[rank] = True
        return rank


def _start_times(arrived: list[float], service: list[float], returns: list[float], readers: int) -> NDArray[np.float64]:
    """By rank: when reading starts."""
    started = np.empty(len(arrived), dtype=np.float64)
    waiting = _Waiting(returns)
    free = [-math.inf] * readers  # heap: when each reader is
    now, coming = -math.inf, 0
    for _ in arrived:
        now = max(now, free[0])
        if not waiting:
            now = max(now, arrived[coming])
        while coming < len(arrived) and arrived[coming] <= now:
            waiting.add(coming)
            coming += 1
        rank = waiting.take(now)
        started[rank] = now
        heapq.heapreplace(free, now + service[rank])
    return started
