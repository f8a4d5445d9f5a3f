"""`clearfilm up`: all processes of a node, restarted when they crash, given up loudly when they keep crashing."""

import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from clearfilm import config as configuration
from clearfilm import logs
from clearfilm.config import Config
from clearfilm.errors import StartupError
from clearfilm.process import notify_ready, stop_event
from db import schema
from db.session import Database

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0
# More crashes than this within the window: something is broken that a restart does not mend.
CRASHES, CRASH_WINDOW_SECONDS = 5, 60.0
LONGEST_PAUSE_SECONDS = 60.0


@dataclass
class Child:
    """One supervised process."""

    name: str
    arguments: list[str]
    channel: socket.socket  # receives sd_notify messages
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    was_ready: bool = False  # in this or an earlier start
    is_needed: bool = True  # the node stops when it cannot be kept running
    is_missed: bool = False  # not needed, and cannot be kept running
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES))
    restart_at: float = 0.0

    def start(self) -> None:
        """Start the process; it ends with this one, however this one ends."""
        self.ready = False
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            self.arguments, env=self.environment, preexec_fn=_prepare_child
        )
        logger.info("process started", extra={"child": self.name, "pid": self.process.pid})

    def listen(self) -> None:
        """Notice that the process said that it serves."""
        if select.select([self.channel], [], [], 0)[0] and b"READY=1" in self.channel.recv(4096):
            self.ready = self.was_ready = True


def supervise(config_path: Path) -> int:
    """Run the node until SIGTERM or SIGINT.

    Parameters
    ----------
    config_path : pathlib.Path
        The configuration file.

    Returns
    -------
    int
        0 after a signal, otherwise the exit code of the process that could not be kept running.

    Raises
    ------
    ConfigurationError, StartupError
        Before anything is started.
    """
    logs.configure("up")
    config = configuration.load(config_path)
    stop = stop_event()
    with ExitStack() as stack:
        stack.enter_context(_lock(config.data_folder))
        _prepare_database(config)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearfilm-")))
        environment = dict(os.environ)
        if config.node.port == 0:
            reserved = stack.enter_context(_reserve_port(config.node.address))
            environment["CLEARFILM_NODE__PORT"] = str(reserved.getsockname()[1])
        if config.worklist.port == 0:
            environment["CLEARFILM_WORKLIST__PORT"] = str(_free_port(config.worklist.address))
        children = [
            _make_child(stack, name, command, config_path, folder, environment) for name, *command in _processes(config)
        ]
        code = _watch(children, config, environment, stop)
        _stop_all(children)
    return code


def _processes(config: Config) -> list[tuple[str, ...]]:
    """Names and commands."""
    listeners = [(f"storescp-{number}", "storescp") for number in range(1, config.node.processes + 1)]
    others = [(name, name) for name in ("worker", "deliver", "schedule")]
    return [*listeners, *others, ("worklist", "worklist", "--supervised")]


def _watch(children: list[Child], config: Config, environment: dict[str, str], stop: object) -> int:
    """Start and restart until a signal comes (0) or a process is beyond help (its exit code)."""
    announced = False
    for child in children:
        child.start()
    while not stop.wait(POLL_SECONDS):  # type: ignore[attr-defined]
        for child in children:
            child.listen()
            code = _look_after(child)
            if code is not None:
                return code
        if not announced and all(child.ready or child.is_missed for child in children):
            announced = True
            notify_ready()
            _announce(config, environment, with_pages=not any(child.is_missed for child in children))
    return 0


def _announce(config: Config, environment: dict[str, str], *, with_pages: bool) -> None:
    """Where the node is, where its web pages are, and while there is no user how to make the first one: a line each."""
    from cli.worklist import address, first_login

    port = environment.get("CLEARFILM_NODE__PORT", config.node.port)
    print(f"ready: {config.node.ae_title}@{config.node.address}:{port}", flush=True)  # noqa: T201 - contract
    if not with_pages:
        return
    pages = address(config, int(environment.get("CLEARFILM_WORKLIST__PORT", config.worklist.port)))
    print(f"web pages: {pages}", flush=True)  # noqa: T201 - the console is the way to them
    with closing(Database(config.database_url)) as database:
        link = first_login(database, pages)
    if link is not None:
        print(link, flush=True)  # noqa: T201 - the console is the way to the first administrator


def _look_after(child: Child) -> int | None:
    """Restart a process that has ended; its exit code if there is no point in that."""
    if child.process is None:
        if time.monotonic() >= child.restart_at:
            child.start()
        return None
    code = child.process.poll()
    if code is None:
        return None
    child.process = None
    now = time.monotonic()
    child.crashes.append(now)
    many = len(child.crashes) == CRASHES and now - child.crashes[0] < CRASH_WINDOW_SECONDS
    hopeless = code == 78 or (code > 0 and not child.was_ready)  # it said itself why it cannot start
    if (many or hopeless) and code != 78 and not child.is_needed:
        logger.error("web pages keep failing: the node goes on without them", extra={"exit_code": code})
        child.is_missed = True
        child.restart_at = now + LONGEST_PAUSE_SECONDS
        return None
    if many or hopeless:
        logger.error("process keeps failing: the node stops", extra={"child": child.name, "exit_code": code})
        sys.stderr.write(f"clearfilm: {child.name} cannot be kept running (exit code {code}); see the log above\n")
        return max(code, 1)
    logger.error("process ended, restarting", extra={"child": child.name, "exit_code": code})
    child.restart_at = now + 0.5 * 2 ** (len(child.crashes) - 1)
    return None


def _stop_all(children: list[Child]) -> None:
    """SIGTERM: each process finishes what it has in hand; SIGKILL for one that does not come to an end."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _make_child(
    stack: ExitStack,
    name: str,
    command: list[str],
    config_path: Path,
    folder: Path,
    environment: dict[str, str],
) -> Child:
    channel = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    channel.bind(str(folder / name))
    arguments = [sys.executable, "-m", "cli.main", *command, "--config", str(config_path)]
    environment = {**environment, "NOTIFY_SOCKET": str(folder / name)}
    return Child(name, arguments, channel, environment, is_needed=name != "worklist")  # films matter more than pages


def _prepare_child() -> None:
    from clearfilm.process import end_with_parent

    end_with_parent()
    # A terminal's Ctrl-C goes to the supervisor alone, which then stops the others in order.
    os.setpgid(0, 0)


def _lock(folder: Path) -> ExitStack:
    """One node for each data folder."""
    stack = ExitStack()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = stack.enter_context((folder / "clearfilm.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(f"another node works in {folder}; stop it, or set another data_folder") from None
    except OSError as error:
        raise StartupError(f"the data folder {folder} is not writable: {error.strerror}") from error
    return stack


def _prepare_database(config: Config) -> None:
    with closing(Database(config.database_url)) as database:
        schema.prepare(database)


def _free_port(address: str) -> int:
    """A port that was free a moment ago; the web pages do not share theirs, as listeners do."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _reserve_port(address: str) -> socket.socket:
    """A free port that the listeners can share with this socket."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((address, 0))
    return reserved
