"""Each private name of pynetdicom that is overridden or used: these fail when one moves."""

import inspect
import logging

import pynetdicom
import pytest
from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from storescp import hardening
from storescp.hardening import AcceptedAssociation, BoundedSocket, Connection, MonotonicTimer, Server, UpperLayer


def test_version_is_the_one_that_was_examined() -> None:
    assert pynetdicom.__version__ == "3.0.4"


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (MonotonicTimer, Timer, ["remaining", "start", "stop"]),
        (BoundedSocket, AssociationSocket, ["ready"]),
        (
            UpperLayer,
            DULServiceProvider,
            ["run_reactor", "send_pdu", "kill_dul", "stop_dul", "idle_timer_expired", "_read_pdu_data"],
        ),
        (AcceptedAssociation, Association, ["run", "_run_reactor"]),
        (Connection, RequestHandler, ["_create_association"]),
        (
            Server,
            AssociationServer,
            ["server_bind", "get_request", "verify_request", "process_request", "handle_error", "shutdown"],
        ),
    ],
)
def test_overridden_names_exist(ours: type, theirs: type, names: list[str]) -> None:
    for name in names:
        assert name in vars(ours), f"{ours.__name__}.{name} is not overridden any more"
        original = getattr(theirs, name)
        if callable(original):
            assert len(inspect.signature(original).parameters) == len(
                inspect.signature(getattr(ours, name)).parameters
            ), name


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        (DULServiceProvider, ["_process_recv_primitive", "_is_transport_event", "_decode_pdu", "_send"]),
        (Association, ["_abort_nonblocking", "kill", "set_socket", "bind"]),
        (AssociationServer, ["server_close", "serve_forever"]),
        (AssociationSocket, ["send", "close"]),
    ],
)
def test_used_methods_exist(theirs: type, names: list[str]) -> None:
    assert all(callable(getattr(theirs, name)) for name in names)


def test_used_attributes_exist() -> None:
    association = Association(ApplicationEntity("TEST"), "acceptor")
    upper = association.dul
    for owner, names in (
        (association, ["_accepted_cx", "_dul_ready", "_kill", "_is_paused", "_server", "acse", "requestor"]),
        (upper, ["_idle_timer", "artim_timer", "_kill_thread", "_recv_pdu", "event_queue", "to_user_queue"]),
        (upper.state_machine, ["current_state", "do_action"]),
        (upper.to_user_queue, ["not_empty", "queue"]),
    ):
        assert all(hasattr(owner, name) for name in names)
    for name in ("LOG_HANDLER_LEVEL", "LOG_REQUEST_IDENTIFIERS", "LOG_RESPONSE_IDENTIFIERS"):
        assert hasattr(_config, name)


def test_receiving_and_sending_messages_keeps_the_state() -> None:
    assert TRANSITION_TABLE["Evt10", "Sta6"] == "DT-2"
    assert TRANSITION_TABLE["Evt9", "Sta6"] == "DT-1"


def test_silence_switches_the_foreign_log_off() -> None:
    hardening.silence()
    assert not logging.getLogger("pynetdicom.dul").isEnabledFor(logging.CRITICAL)


def test_timer_follows_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("storescp.hardening.time.monotonic", lambda: now)
    timer = MonotonicTimer(10)
    assert not timer.expired
    timer.start()
    now = 109.0
    assert timer.remaining == 1.0
    assert not timer.expired
    now = 111.0
    assert timer.expired
    timer.restart()
    assert not timer.expired
    timer.timeout = None
    assert not timer.expired
