"""Signals that end a run early: what is remembered, what ends the process at once, which exit status follows."""

import os
import signal

import pytest

from electra_jax.host import preempt


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_first_ctrl_c_saves_and_the_second_leaves(capfd):
    """Catches steps lost to a Ctrl-C, and a run that cannot be stopped while it saves."""
    with preempt.listening():
        with preempt.interruptible():
            send(signal.SIGINT)
            assert preempt.told() and preempt.status() == 130
            assert (
                "saving after the step in hand; Ctrl-C again leaves at once"
                in capfd.readouterr().err
            )
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not preempt.told()


def test_sigterm_has_its_own_status():
    """Catches a script that cannot tell a machine taken away from a user who stopped the run."""
    with preempt.listening(), preempt.interruptible():
        send(signal.SIGTERM)
        assert preempt.told() and preempt.status() == 75


def test_ctrl_c_where_nothing_is_lost():
    """Catches a Ctrl-C that waits for a compilation, or is taken from a caller who did not ask for it."""
    with preempt.listening(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    with preempt.interruptible(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with preempt.listening(), preempt.interruptible():
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
