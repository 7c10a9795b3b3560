"""What a run reports: each line once, whole, valid JSON; events, clock, lock-step with a resume."""

import fcntl
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import termios
import textwrap
import types

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.host.clock import Clock
from electra_jax.learn import report
from electra_jax.learn.report import Report, rewind, summary
from electra_jax.spec import UserError


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_lines_are_valid_json_whatever_the_values(tmp_path):
    """Catches NaN written as a bare word, numpy numbers that JSON refuses, and lost integers."""
    values = {
        "loss": np.float32(1.5),
        "auc": jnp.float32(0.25),
        "skipped": 3,
        "mfu": None,
        "norm": math.inf,
        "mlm_loss": float("nan"),
        "note": "x",
    }
    with Report(tmp_path) as r:
        r.write(7, "train", values)
        r.flush()
    assert lines(tmp_path) == [
        {"step": 7, "split": "train", "loss": 1.5, "auc": 0.25, "skipped": 3, "mfu": None}
        | {"norm": None, "mlm_loss": None, "note": "x"}
    ]


def test_a_step_and_split_stands_once(tmp_path):
    """Catches a second line for the same (step, split), also across starts."""
    with Report(tmp_path) as r:
        for step in (1, 2, 3):
            r.write(step, "train", {"loss": step})
        r.write(2, "valid", {"loss": 0})
        with pytest.raises(ValueError, match="already has step 2, split 'valid'"):
            r.write(2, "valid", {"loss": 1})
    with Report(tmp_path, start=2) as r:  # killed and resumed at step 2
        assert r.has(2, "train") and r.has(2, "valid") and not r.has(3, "train")
        r.write(3, "train", {"loss": 33})
    assert [(x["step"], x["split"], x["loss"]) for x in lines(tmp_path)] == [
        (1, "train", 1),
        (2, "train", 2),
        (2, "valid", 0),
        (3, "train", 33),
    ]


@pytest.mark.parametrize(
    "torn", [b'{"step": 3, "spl', b'{"step": 3, "split": "train", "loss": 1}', b"\0\0\0\n", b"[]\n"]
)
def test_rewind_drops_what_a_kill_or_power_cut_left(tmp_path, torn):
    """Catches a torn last line that the next line is appended to, and steps that are run again."""
    whole = b'{"step": 1, "split": "train", "loss": 2.5}\n'
    later = b'{"step": 4, "split": "train", "loss": 9}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + later + torn)
    assert rewind(tmp_path, 3) == {(1, "train")}
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert rewind(tmp_path, 0) == set() and (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert rewind(tmp_path / "new", 0) == set()


def test_tensorboard_reads_the_events_and_hides_what_was_run_again(tmp_path):
    """Catches missing event files, TensorFlow being needed, and a zigzag curve after a resume."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Report(tmp_path, tensorboard=True) as r:
        for step in (1, 2, 3):
            r.write(step, "train", {"loss": step, "mfu": None, "norm": math.nan})
    with Report(tmp_path, start=2, tensorboard=True) as r:
        r.write(3, "train", {"loss": 30.0})
        r.write(3, "valid", {"loss": 31.0})
        r.flush()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "valid/loss"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 30)]
    code = (
        "import sys; from tensorboardX import SummaryWriter; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_and_biases_is_optional_and_continues_its_run(tmp_path, monkeypatch):
    """Catches an import when it is not asked for, a new run id per start, and a missing install hint."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    Report(tmp_path).close()
    with pytest.raises(UserError, match=r"pip install 'electra_jax\[wandb\]'"):
        Report(tmp_path, wandb="project")
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda exit_code: calls.append(exit_code),
    )
    fake = types.SimpleNamespace(init=lambda **given: calls.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for start in (0, 1):
        with Report(tmp_path, start=start, wandb="project", config={"seed": 1}) as r:
            r.write(start + 1, "train", {"loss": 2.0})
    inits = [c for c in calls if isinstance(c, dict)]
    assert (
        inits[0]["id"] == inits[1]["id"] and len(inits) == 2 and inits[0]["config"] == {"seed": 1}
    )
    assert calls.count((2, {"train/loss": 2.0})) == 1 and calls[-1] == 0


def test_without_a_terminal_progress_is_a_few_plain_lines(tmp_path, capfd, monkeypatch):
    """Catches control characters and a line per step in a log file, and a missing last line."""
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    with Report(tmp_path, start=10, total=110) as r:
        for step in range(11, 111):
            now[0] += 1.0
            r.progress(step, "loss 1.0")
            r.progress(step)
    err = capfd.readouterr().err.splitlines()
    assert err[0] == "step 11/110  loss 1.0  01:39 left" and err[-1] == "step 110/110  loss 1.0"
    assert len(err) == 11 and not any("\r" in line or "\x1b" in line for line in err)


def test_the_time_left_is_that_of_steps(tmp_path, capfd, monkeypatch):
    """Catches compilation, at the start or between phases, in the estimate of what is left."""
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    with Report(tmp_path, total=100) as r:
        for step in range(1, 31):
            if step in (1, 16):
                now[0] += 1000.0  # compiling
                r.unpause()
            now[0] += 1.0
            r.progress(step, "loss 1.0")
    lines = capfd.readouterr().err.splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == [
        "01:39 left", "01:29 left", "01:24 left", "01:14 left"
    ]  # fmt: skip


def test_on_a_terminal_there_is_a_bar_with_the_values(tmp_path):
    """Catches a bar that does not move, starts at zero after a resume, or hides the values."""
    code = """
        import sys
        from electra_jax.learn.report import Report
        with Report(sys.argv[1], start=50, total=100) as r:
            r.progress(75, "loss 1.25")
            r._bar.refresh()
            r.say("saved")
    """
    read, write = os.openpty()
    fcntl.ioctl(
        write, termios.TIOCSWINSZ, struct.pack("4H", 25, 120, 0, 0)
    )  # 25 lines of 120 columns
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stderr=write, check=True
    )
    os.close(write)
    shown = b""
    try:
        while part := os.read(read, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(read)
    assert b"75/100" in shown and b"loss 1.25" in shown and b"50/100" in shown and b"saved" in shown


def test_full_disk_is_a_user_error(tmp_path):
    """Catches a traceback, or a silently shortened file, when metrics.jsonl can take no more."""
    code = """
        import resource, signal, sys
        from electra_jax.spec import UserError
        from electra_jax.learn.report import Report
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            with Report(sys.argv[1]) as r:
                for step in range(10):
                    r.write(step, "train", {"loss": 1.0})
        except UserError as error:
            print("told:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.startswith("told: cannot write"), done
    assert len(rewind(tmp_path, 100)) == 2  # of 43 bytes each; the torn third is dropped
    assert len(lines(tmp_path)) == 2


def test_clock_counts_the_inner_counter_and_laps():
    """Catches time counted twice in nested counters, and laps that overlap."""
    now = [100.0]
    clock = Clock(lambda: now[0])
    with clock.time("init"):
        now[0] += 5
    with clock.time("step"):
        now[0] += 10
        with clock.time("data"):
            now[0] += 2
        now[0] += 1
        first = clock.lap()
        with pytest.raises(KeyError), clock.time("evaluate"):
            now[0] += 4
            raise KeyError
        now[0] += 3
    now[0] += 1
    seconds = clock.seconds()
    assert seconds == {"init": 5, "compile": 0, "data": 2, "step": 14} | {
        "checkpoint": 0,
        "evaluate": 4,
        "wall": 26,
    }
    assert clock.goodput() == 14 / 26
    second = clock.lap()
    assert (
        first["wall"] == 18 and second["wall"] == 8 and second["step"] == 3 and second["data"] == 0
    )
    with pytest.raises(ValueError, match="'stpe' is not a counter"), clock.time("stpe"):
        pass


def test_summary_shows_what_is_there():
    """Catches a progress line that fails when a value is missing or null."""
    values = {"loss": 12.3456, "mlm_loss": None, "tokens_per_s": 12345.6, "other": 1}
    shown = {"mlm_loss": "mlm {:.3f}", "loss": "loss {:.4g}"}
    assert summary(values, shown) == "loss 12.35  12,346 tokens/s"
    assert summary({}, shown) == ""


def test_what_is_removed_during_a_run_begins_anew(tmp_path, capfd):
    """Catches events and lines that go to removed files without a word, for days."""
    with Report(tmp_path, tensorboard=True) as report:
        report.write(1, "train", {"loss": 1.0})
        shutil.rmtree(tmp_path / "tensorboard")
        (tmp_path / "metrics.jsonl").unlink()
        report.write(2, "train", {"loss": 2.0})
        report.write(3, "train", {"loss": 3.0})
        report.flush()
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
        assert [p.stat().st_size > 100 for p in (tmp_path / "tensorboard").iterdir()] == [True]
    said = capfd.readouterr().err
    assert said.count("was removed during the run; it begins anew with step 2") == 2
