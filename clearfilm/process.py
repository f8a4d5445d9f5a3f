"""What all long-running processes do alike: stop on a signal, tell that they serve, not outlive a parent."""

import ctypes
import os
import signal
import socket
import threading
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set; call it in the main thread."""
    stop = threading.Event()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    return stop


def notify_ready() -> None:
    """Tell the supervisor (systemd, or `clearfilm up`) that this process serves now: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # A leading @ means Linux's abstract namespace.
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(b"READY=1")


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (on Linux; elsewhere: nothing)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def process_name() -> str:
    """Host, its process numbering (containers have their own) and process number: the owner of a claimed job."""
    return f"{_host()}:{os.getpid()}"


def is_dead(owner: str) -> bool:
    """Whether the owner of a claimed job was a process of this host that exists no more."""
    host, _, number = owner.rpartition(":")
    return host == _host() and not Path(f"/proc/{number}").exists()


def _host() -> str:
    return f"{socket.gethostname()}:{Path('/proc/self/ns/pid').stat().st_ino}"
