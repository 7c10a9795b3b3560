"""What a run tells its user in words: how it begins, how it is started again, what keeps it from learning."""

import shlex

import jax
from jax.sharding import Mesh

from electra_jax.learn.report import Report, Silence
from electra_jax.learn.step import State
from electra_jax.model.electra import count_parameters
from electra_jax.pretrain import budget
from electra_jax.pretrain.start import Start
from electra_jax.workdir import imported


def begin(report: Report | Silence, start: Start, devices: Mesh, first: int, state: State) -> None:
    run, data = start.run, start.data
    parameters = count_parameters(state["params"], run.dimensions(data.vocab_size))
    report.say(
        f"{parameters:,} trainable parameters; {data.rows['train']:,} rows of {data.seq_len} tokens; "
        f"batch {run.train.batch} on {devices.size} x {devices.devices.flat[0].device_kind}"
    )
    if start.note:
        report.say(f"note: {start.note}")
    for change in start.changes:
        report.say(f"changed at step {first}: {change}")
    if budget.spent(state) >= 1:
        report.say(f"{start.folder} is finished: after step {first} its time was up")
    elif first == run.train.steps:
        report.say(f"{start.folder} is finished: all {first} steps are done")
    elif first:
        report.say(f"resuming {start.folder} after step {first}")


def command(name: str) -> str:
    """What starts the run of this workdir again."""
    several = " (in every process, with its flags)" if jax.process_count() > 1 else ""
    return f"electra-jax pretrain --workdir {shlex.quote(name)}{several}"


def not_finite_at_first(start: Start) -> str:
    """What to say of a first step without a finite loss and gradient: more steps would change nothing."""
    model = start.run.model
    begun = "the imported weights" if imported.read_record(start.folder) else "fresh parameters"
    return (
        f"loss or gradient is not finite in the very first step, from {begun}, so nothing would be learned. Likely "
        f"causes: numbers that overflow (--config.model.init_std={model.init_std:g}, usually 0.02; "
        f"--config.model.dtype={model.dtype}, try float32; weights in --config.objective), "
        "damaged weights (import them again), or a fault of this device (try another)"
    )
