"""Held-out evaluation: fixed rows, fixed masks and samples, no dropout, rank-exact AUC."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax import files
from electra_jax.data import baselines as counting
from electra_jax.data import loader
from electra_jax.data.baselines import Counted
from electra_jax.data.source import Source
from electra_jax.learn import checkpoint
from electra_jax.learn import program as programs
from electra_jax.learn.mesh import build as build_mesh
from electra_jax.pretrain import baselines, program
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import check_length, run_spec
from electra_jax.pretrain.program import Program
from electra_jax.spec import UserError
from electra_jax.workdir import away
from electra_jax.workdir.record import read_record


class Abandoned(Exception):
    """The evaluation was given up half way."""


def held_out(
    compiled: Program,
    params: Any,
    carried: Any,
    source: Source,
    batch: int,
    batches: int,
    give_up: Callable[[], bool] = lambda: False,
    counted: Counted | None = None,
) -> dict[str, float]:
    """Metric values over the first `batches` x `batch` held-out rows (all of them when there are fewer).

    With `counted` also what token frequencies reach where the objective knows it. `give_up` is asked before every
    batch; Abandoned is raised when it says so.
    """
    totals: dict[str, np.ndarray] = {}
    tokens: dict[str, list[np.ndarray]] = {}
    held = None
    devices = compiled.batch_sharding.mesh.size
    fixed = loader.fixed_batches(
        source, batch, batches, compiled.batch_sharding, -(-batch // devices) * devices
    )
    for number, rows in enumerate(fixed):
        if give_up():
            raise Abandoned
        # One batch ahead: the device works on this one while the host adds up the one before.
        ahead = compiled.eval_step(params, carried, rows, compiled.scalar(number * batch))
        if held is not None:
            _add(totals, tokens, jax.device_get(held))
        held = ahead
    if held is None:
        return {}
    _add(totals, tokens, jax.device_get(held))
    values = compiled.objective.metrics(totals)
    if tokens:
        found = {name: np.concatenate(parts) for name, parts in tokens.items()}
        values |= compiled.objective.rank_metrics(found, counted)
    return values


def _add(
    totals: dict[str, np.ndarray],
    tokens: dict[str, list[np.ndarray]],
    result: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
) -> None:
    sums, by_token = result
    for name, value in sums.items():
        totals[name] = totals.get(name, np.float64(0)) + np.asarray(value, np.float64)
    for name, values in by_token.items():
        if name != "valid":
            tokens.setdefault(name, []).append(values[by_token["valid"]])


def evaluate_workdir(
    folder: str | Path, step: int | None = None, data: str | None = None, average: bool = False
) -> dict[str, Any]:
    """Evaluates a checkpoint of a workdir and writes the result to its `evaluate-<step>.json`.

    `data` names another prepared folder made with the same tokenizer; its held-out split is used. `average`: the
    average of the weights in place of them, and the file is `evaluate-<step>-average.json`.
    """
    with away.opened(folder) as home:
        return _evaluate(home.folder, step, data, average)


def _evaluate(folder: Path, step: int | None, data: str | None, average: bool) -> dict[str, Any]:
    record = read_record(folder)
    run = run_spec(record["config"], folder)
    prepared = run.data.open(data or "")
    if prepared.tokenizer_hash != record["data"]["tokenizer_hash"]:
        raise UserError(
            f"{prepared.path} was prepared with another tokenizer than the run's; prepare it with "
            f"--tokenizer {folder / 'tokenizer'}"
        )
    if not prepared.rows.get("valid"):
        raise UserError(
            f"{prepared.path} has no held-out rows; prepare it with --valid-fraction or --valid-input"
        )
    programs.use_compilation_cache()
    mesh = build_mesh(program.choose_mesh(run, prepared))
    phase = run.phases(prepared)[-1]
    check_length(run, phase)
    compiled = program.build(run, phase, mesh)
    step, params, carried = _restore(folder, step, compiled, record, average)
    rows = min(prepared.rows["valid"], phase.batch * run.train.eval_batches)
    counted, source = counting.of(prepared), prepared.source("valid")
    values = held_out(
        compiled, params, carried, source, phase.batch, run.train.eval_batches, counted=counted
    )
    if counted is not None:
        values |= baselines.baselines_of(prepared, compiled.objective, rows, counted)
    result = {
        "step": step,
        **({"average": run.train.average} if average else {}),
        "data": prepared.origin,
        "fingerprint": prepared.fingerprint,
        "rows": rows,
        **{name: None if np.isnan(value) else value for name, value in values.items()},
    }
    files.write_json(folder / result_name(step, average), result)
    if note := baselines.worse(result, compiled.objective.shown):
        print(note, file=sys.stderr)
    return result


def _restore(
    folder: Path, step: int | None, compiled: Program, record: dict[str, Any], average: bool
) -> tuple[int, Any, Any]:
    found = checkpoint.read(folder, step)
    starts.edited(folder, record, (found.step, found.meta))
    params = found.average(folder) if average else found.params
    return found.step, compiled.place("params", params), compiled.place("carried", found.carried)


def result_name(step: int, average: bool = False) -> str:
    """The file of a workdir that holds the evaluation of a step."""
    return f"evaluate-{step}{'-average' * average}.json"
