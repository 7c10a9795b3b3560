"""Processes that wait for one another: as long as the other lives, and no longer."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from electra_jax import activity
from electra_jax.host import store
from electra_jax.host.store import LostError, Store
from electra_jax.spec import UserError


class Client:
    """The store of jax.distributed in memory; only waiting moves its clock; `at` says what others write when."""

    def __init__(self, at: dict[float, dict[str, object]]) -> None:
        self.now, self.at, self.values = 0.0, at, {}

    def _write_what_is_due(self) -> None:
        for moment in [moment for moment in self.at if moment <= self.now]:
            for name, value in self.at.pop(moment).items():
                self.values[f"electra_jax/{name}"] = json.dumps(value)

    def key_value_set(self, name: str, value: str, overwrite: bool) -> None:
        if name in self.values and not overwrite:
            raise ValueError("ALREADY_EXISTS")
        self.values[name] = value

    def key_value_try_get(self, name: str) -> str:
        self._write_what_is_due()
        if name not in self.values:
            raise ValueError("NOT_FOUND: no such key")
        return self.values[name]

    def blocking_key_value_get(self, name: str, timeout_ms: int) -> str:
        self._write_what_is_due()
        if name not in self.values:
            self.now += timeout_ms / 1000
            raise RuntimeError("DEADLINE_EXCEEDED: timed out")
        return self.values[name]


@pytest.fixture
def waiting(monkeypatch):
    """Makes a store in which others write as told, whose waiting takes no time."""

    def make(at: dict[float, dict[str, object]]) -> Store:
        client = Client(at)
        monkeypatch.setattr(store.time, "monotonic", lambda: client.now)
        return Store(client, 0, 2)

    return make


def test_a_living_process_is_waited_for(waiting, capsys):
    """Catches the fixed limit of five minutes: a host that copies data for an hour ended the run of all."""
    signs = {
        float(second): {"alive/1": {"beat": second, "doing": f"copying gs://b: {second} GB"}}
        for second in range(0, 3600, 5)
    }
    s = waiting(signs | {3600.0: {"facts/1": {"seed": 7}}})
    assert s.get("facts/1", writer=1) == {"seed": 7}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("waiting for process 1: copying gs://b: ")
    assert 100 < len(lines) < 130  # two a minute


def test_a_silent_process_is_not_waited_for(waiting):
    """Catches a wait for a process that was killed: its last sign of life stays in the store."""
    s = waiting({0.0: {"alive/1": {"beat": 1, "doing": "starting"}}, 99.0: {"facts/1": {}}})
    with pytest.raises(
        LostError, match=r"process 1 has given no sign of life for 40 s; .* starting"
    ):
        s.get("facts/1", writer=1)
    assert s._client.now < 50


def test_an_error_elsewhere_is_told(waiting):
    """Catches a process that waits until the limit for one that has long said what is wrong, and does not say it."""
    s = waiting({3.0: {"ended/1": "gs://b is incomplete"}})
    with pytest.raises(UserError, match="process 1 of this run ended: gs://b is incomplete"):
        s.get("facts/1", writer=1)
    assert s._client.now < 5


def test_activities_nest():
    """Catches an activity that outlives its work, or an inner one that forgets the outer."""
    with activity.doing("copying") as progress:
        progress("1 of 2 GB")
        with activity.doing("hashing"):
            assert activity.current() == "hashing"
        assert activity.current() == "copying: 1 of 2 GB"
    assert activity.current() == "starting"


SCRIPT = """
    import sys, time
    from electra_jax import activity
    from electra_jax.spec import UserError
    from electra_jax.host import processes, store

    store.SILENT_S, store.BEAT_S, store.SAY_S = 3.0, 0.2, 1.0
    port, index, how = sys.argv[1:]
    with processes.joined(processes.Plan(f"127.0.0.1:{port}", 2, int(index)), 60):
        if index == "1":
            print("joined", flush=True)
            with activity.doing("copying the data"):
                time.sleep(8 if how == "slow" else 600 if how == "killed" else 0)
            if how == "wrong":
                raise UserError("the data are incomplete")
        processes.agree("how", {"seed": 1})
    print("agreed")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "statuses", "expected"),
    [
        ("slow", [0, 0], "waiting for process 1: copying the data"),
        ("wrong", [2, 2], "error: process 1 of this run ended: the data are incomplete"),
        ("killed", [75, -9], "process 1 has given no sign of life"),
    ],
)
def test_two_real_processes(how, statuses, expected, tmp_path):
    """Catches a run that ends because one process is late, and one that waits for the dead or the refused: real
    processes, the real store, limits of seconds instead of minutes."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, script, port, str(index), how],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        if how == "killed":
            assert both[1].stdout.readline() == "joined\n"
            time.sleep(1)
            both[1].send_signal(signal.SIGKILL)
        said = [process.communicate(timeout=120)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == statuses, said
    assert expected in said[0]
