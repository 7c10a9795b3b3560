"""The loop: killed and resumed it gives what it gives undisturbed; every line once; when it stops."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax import remote
from electra_jax.data import cache, staged
from electra_jax.data.prepare import build
from electra_jax.host import preempt
from electra_jax.learn import checkpoint
from electra_jax.learn.arrays import flatten
from electra_jax.objective import registry
from electra_jax.pretrain import evaluate, fit, loop, sensible
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import Phase
from electra_jax.spec import UserError
from electra_jax.workdir.record import read_record

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap")]
TIMES = {"tokens_per_s", "model_flops_per_s", "mfu", "mfu_of_matmul", "data_wait", "goodput"}
EVERY = ("train.log_every=1",)  # 20 steps, evaluation and checkpoint at 10 and 20


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """The rows of this step are never read."""
    rows = Phase.rows

    def killed(self: Phase, at: int, seed: int) -> np.ndarray:
        if at == step:
            raise Killed
        return rows(self, at, seed)

    patch.setattr(Phase, "rows", killed)


@pytest.fixture(scope="module")
def runs(config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same run undisturbed, and killed at steps 13 and 3 (before any checkpoint) on the way."""
    folder = tmp_path_factory.mktemp("runs")
    loop.pretrain(config(*EVERY), folder / "whole")
    for step in (3, 13):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(step, patch)
            loop.pretrain(config(*EVERY) if step == 3 else None, folder / "killed")
    assert lines(folder / "killed")[-1]["step"] > 10
    loop.pretrain(None, folder / "killed")
    return SimpleNamespace(whole=folder / "whole", killed=folder / "killed", home=folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(folder)]


def test_parameters_bit_for_bit(runs):
    """Catches any state of a run that its checkpoint lacks: a generator, an iterator, a counter."""
    whole, killed = (checkpoint.read_params(f) for f in (runs.whole, runs.killed))
    assert whole[0] == killed[0] == 20
    for name, x in flatten(whole[1]).items():
        assert x.tobytes() == flatten(killed[1])[name].tobytes(), name


def test_told_to_leave_it_goes_on_as_if_it_had_not(runs, config, capsys):
    """Catches a stop that loses steps or lines: at train.stop_at, on SIGTERM in the middle of the
    evaluation of step 10 (which the next start makes up for), on SIGTERM at a step."""
    folder = runs.home / "told"
    assert loop.pretrain(config(*EVERY, "train.stop_at=7"), folder)
    assert checkpoint.Checkpoints(folder).steps() == [7]
    assert "train.stop_at=7 is reached" in capsys.readouterr().err
    go_on = ["train.stop_at=0"]
    for told in (10, 13):
        with pytest.MonkeyPatch.context() as patch, preempt.listening():
            terminate_at(told, patch)
            assert not loop.pretrain(None, folder, go_on)
        stopped = checkpoint.Checkpoints(folder).steps()[-1]
        assert stopped == 10 if told == 10 else 11 <= stopped <= 14
        assert (
            f"told to leave: stopped after step {stopped}; to go on: electra-jax pretrain"
            in capsys.readouterr().err
        )
    assert loop.pretrain(None, folder)
    assert in_order(untimed(folder)) == in_order(untimed(runs.whole))
    whole, told = (flatten(checkpoint.read_params(f)[1]) for f in (runs.whole, folder))
    assert all(x.tobytes() == told[name].tobytes() for name, x in whole.items())
    assert [c["step"] for c in read_record(folder)["changes"]] == [7]


def terminate_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the evaluation of step 10, else when the rows of the step are read."""
    rows, abandon = Phase.rows, preempt.heard

    def told(self: Phase, at: int, seed: int) -> np.ndarray:
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return rows(self, at, seed)

    def told_in_evaluation() -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return abandon()

    if step == 10:
        patch.setattr(preempt, "heard", told_in_evaluation)
    else:
        patch.setattr(Phase, "rows", told)


def in_order(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: (line["step"], line["split"]))


def test_lines_are_the_same_and_there_once(runs):
    """Catches lines of repeated steps, lines lost at the kill, and numbers that are not those of the
    step they are under."""
    assert untimed(runs.whole) == untimed(runs.killed)
    keys = [(line["step"], line["split"]) for line in lines(runs.whole)]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {(s, "train") for s in range(1, 21)} | {(s, "valid") for s in (0, 10, 20)}


def test_what_a_line_says(runs):
    """Catches a rate of another step, a metric left out, and padding of numbers that are not there."""
    by_step = {(line["step"], line["split"]): line for line in lines(runs.whole)}
    for done in (1, 3, 10, 20):
        step = done - 1  # the step a line reports is 0-based step done - 1
        rate = 1e-3 * (1 - step / 20) * min(1, step / 5)
        assert by_step[done, "train"]["learning_rate"] == pytest.approx(rate, rel=1e-5)
    first, last = by_step[1, "train"], by_step[20, "train"]
    assert set(last) >= TIMES | {"grad_norm", "skipped", "generator_entropy", "disc_auc"}
    assert last["mfu"] is None  # no vendor's peak for a CPU
    assert last["tokens_per_s"] > 0
    assert last["skipped"] == 0
    assert last["mlm_loss"] < first["mlm_loss"]
    beside = {name for name in by_step[0, "valid"] if name.endswith(("_unigram", "_bigram"))}
    assert "mlm_loss_bigram" in beside and "disc_auc_unigram" in beside
    assert set(by_step[0, "valid"]) - beside <= set(first)


def test_evaluating_the_workdir_gives_the_line_of_its_step(runs):
    """Catches evaluation with other rows, masks or samples than those of the run."""
    held = {line["step"]: line for line in lines(runs.whole) if line["split"] == "valid"}
    for step in (10, None):
        result = evaluate.evaluate_workdir(runs.whole, step)
        line = held[result["step"]]
        for name in set(line) - {"step", "split"}:
            assert result[name] == line[name], name
        written = json.loads((runs.whole / f"evaluate-{result['step']}.json").read_text())
        assert written == result
    assert set(held) == {0, 10, 20}


def test_a_finished_run_is_left_alone(runs, capsys):
    """Catches a start that trains on, or writes a line again, after the last step."""
    before = (runs.whole / "metrics.jsonl").read_bytes()
    loop.pretrain(None, runs.whole)
    assert (runs.whole / "metrics.jsonl").read_bytes() == before
    assert "is finished: all 20 steps are done" in capsys.readouterr().err


def test_what_it_announces(runs, config, prepared, tmp_path, capsys):
    """Catches the number of parameters counted with padding, or not printed."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(0, patch)
        loop.pretrain(config(*EVERY), tmp_path)
    said = capsys.readouterr().err
    from electra_jax.model.electra import count_parameters

    start = starts.open_run(None, runs.whole)
    dims = start.run.dimensions(prepared.vocab_size)
    count = count_parameters(checkpoint.read_params(runs.whole)[1], dims)
    assert f"{count:,} trainable parameters" in said
    assert f"{prepared.rows['train']:,} rows of 32 tokens; batch 8 on 1 x cpu" in said


def test_too_many_steps_that_are_not_finite(config, tmp_path, monkeypatch):
    """Catches a run that computes NaN for days: it stops with what to do, the last finite parameters
    are kept, and what was not finite is null in the lines."""
    monkeypatch.delitem(sensible.RANGES, "optim.peak_lr")
    broken = config(
        *EVERY,
        "optim.peak_lr=1e25",
        "optim.warmup=0",
        "train.max_skipped=4",
        "train.checkpoint_every=2",
    )
    with pytest.raises(UserError, match="not finite in 5 steps in a row.*lower --config.optim"):
        loop.pretrain(broken, tmp_path)
    last = lines(tmp_path)[-1]
    assert last["split"] == "train"
    assert last["grad_norm"] is None
    assert last["skipped"] == 5
    _, params, _ = checkpoint.read_params(tmp_path)
    assert all(np.isfinite(x).all() for x in flatten(params).values())


def test_data_exchanged_under_a_run(config, prepared_folder, tmp_path, monkeypatch):
    """Catches a run that learns from another folder than it began with, and keeps what it learned: the
    copy that takes the folder's place has the same bytes, so only its files can tell."""
    data, rows = shutil.copytree(prepared_folder, tmp_path / "data"), Phase.rows

    def exchanged(self: Phase, at: int, seed: int) -> np.ndarray:
        if at == 15:
            other = shutil.copytree(data, tmp_path / "other")
            data.rename(tmp_path / "aside")
            other.rename(data)
        return rows(self, at, seed)

    monkeypatch.setattr(Phase, "rows", exchanged)
    with pytest.raises(UserError, match="was replaced or changed while the run was reading it"):
        loop.pretrain(config(*EVERY, data=data), tmp_path / "run")
    assert checkpoint.Checkpoints(tmp_path / "run").steps() == [10]


def test_no_implicit_transfer_in_the_loop(config, tmp_path, monkeypatch):
    """Catches the guard lifted: a number that reaches the device unasked stops the run."""
    push = loop.OneStepLate.push

    def careless(self, done, sums):
        jax.jit(lambda x: x + 1)(np.ones(3))
        push(self, done, sums)

    monkeypatch.setattr(loop.OneStepLate, "push", careless)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        loop.pretrain(config(*EVERY), tmp_path)


def test_another_micro_batch_gives_the_same_run(config, runs, tmp_path):
    """Catches an option that is called free but is not: losses agree to rounding."""
    loop.pretrain(config(*EVERY, "train.accumulation=2"), tmp_path)
    for ours, theirs in zip(untimed(tmp_path), untimed(runs.whole), strict=True):
        assert ours["mlm_loss"] == pytest.approx(theirs["mlm_loss"], rel=1e-4)
        assert ours["disc_loss"] == pytest.approx(theirs["disc_loss"], rel=1e-4)


def test_phases_on_the_same_data_are_one_run(config, runs, tmp_path):
    """Catches a phase that begins the data, the noise or the schedule again: in two phases of the same
    batch the run is bit for bit the one in one."""
    loop.pretrain(config(*EVERY, "train.phases=({'steps': 7}, {'steps': 13})"), tmp_path)
    assert untimed(tmp_path) == untimed(runs.whole)


def test_windows_of_a_bucket_are_those_of_the_folder(
    config, prepared_folder, bucket, tmp_path, monkeypatch
):
    """Catches a run on shards as they come that is not the one on the folder, killed or in phases; one that copies the
    whole; and a window changed, or too large for local disk, without a word."""
    window = (*EVERY, "data.window=1")
    loop.pretrain(config(*window), tmp_path / "whole")
    remote.publish(prepared_folder, f"{bucket}/data")
    monkeypatch.setattr(staged, "stage", None)  # nothing is copied whole
    two = ("train.phases=({'steps': 7}, {'steps': 13})", f"data.path={bucket}/data")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(13, patch)
        loop.pretrain(config(*window, *two), tmp_path / "killed")
    with pytest.raises(UserError, match="data.window"):
        loop.pretrain(None, tmp_path / "killed", ["data.window=2"])
    loop.pretrain(None, tmp_path / "killed")
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="GB of local disk at once"):
        patch.setenv(cache.LIMIT, "1")
        loop.pretrain(config(*window, f"data.path={bucket}/data"), tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_phases_of_two_lengths_killed_in_the_second(config, prepared_folder, tmp_path):
    """Catches a phase that is not resumed where it was, compiled for the other's length, or on other
    data than it was begun on; a run of two lengths compiles two steps."""
    text, vocab = prepared_folder.parent / "corpus.txt", prepared_folder.parent / "vocab.txt"
    build.prepare([str(text)], vocab, 16, tmp_path / "short", valid_fraction=0.2, workers=1)
    long = f"{{'steps': 8, 'path': '{prepared_folder}', 'batch': 16, 'accumulation': 2, 'peak_lr': 1e-3}}"
    phases = f"train.phases=({{'steps': 12}}, {long})"
    compiled = []

    def count(run, phase, built, compile=fit.compile_that_fits):
        compiled.append(phase.data.seq_len)
        return compile(run, phase, built)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "compile_that_fits", count)
        loop.pretrain(config(*EVERY, phases, data=tmp_path / "short"), tmp_path / "whole")
    assert compiled == [16, 32]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(17, patch)
        overrides = (*EVERY, phases, "train.checkpoint_every=5")
        loop.pretrain(config(*overrides, data=tmp_path / "short"), tmp_path / "killed")
    loop.pretrain(None, tmp_path / "killed")
    whole, killed = (checkpoint.read_params(tmp_path / name)[1] for name in ("whole", "killed"))
    for name, x in flatten(whole).items():
        assert x.tobytes() == flatten(killed)[name].tobytes(), name
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")
    record = read_record(tmp_path / "whole")["data"]
    assert len(set(record["phases"])) == 2


def test_nan_in_the_very_first_step(config, tmp_path, monkeypatch):
    """Catches a run that goes on to `max_skipped` although it began with nothing that could be learned from."""
    for objective in map(registry.module, registry.KNOWN):
        monkeypatch.delitem(getattr(objective, "RANGES", {}), "discriminator_weight", raising=False)
    with pytest.raises(UserError, match=r"not finite in the very first step.*Likely.*init_std=1"):
        loop.pretrain(
            config("train.steps=20", "model.init_std=1.0", "objective.discriminator_weight=1e38"),
            tmp_path,
        )
    assert checkpoint.Checkpoints(tmp_path).steps() == []


def test_a_config_edited_by_hand_is_neither_resumed_nor_evaluated_nor_exported(
    runs, tmp_path, prepared
):
    """Catches a card, an evaluation or a resume that says of a checkpoint what it was not trained with."""
    from electra_jax.convert import hf

    folder = shutil.copytree(runs.whole, tmp_path / "run")
    record = json.loads((folder / "config.json").read_text())
    record["config"]["model"]["dropout"] = 0.3
    (folder / "config.json").write_text(json.dumps(record))
    for use in (
        lambda: loop.pretrain(None, folder),
        lambda: evaluate.evaluate_workdir(folder),
        lambda: hf.export(folder, tmp_path / "out"),
    ):
        with pytest.raises(UserError, match=r"config.json was edited.*model.dropout: was 0.1, now"):
            use()
    assert not (tmp_path / "out").exists()
