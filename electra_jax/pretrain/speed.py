"""How fast a run is: tokens and useful FLOPs per second, MFU, waiting for data, goodput."""

from electra_jax.host.clock import Clock
from electra_jax.learn import hardware
from electra_jax.model import flops
from electra_jax.pretrain.options import Phase, RunSpec
from electra_jax.pretrain.program import Program


def useful_flops(run: RunSpec, phase: Phase) -> float:
    """Useful FLOPs of a train step over all devices (see model/flops.py)."""
    row = run.make_objective(phase.data).flops(phase.data.seq_len)
    return flops.PASSES * phase.batch * row


class Speed:
    """Speeds since the last time it was asked; pauses for compilation, evaluation and checkpoints do not count."""

    def __init__(
        self, run: RunSpec, phase: Phase, compiled: Program, clock: Clock, first: int
    ) -> None:
        data = phase.data
        self._clock, self._done = clock, first
        self._devices = list(compiled.mesh.devices.flat)
        self._dtype = run.model.dtype
        self._tokens = phase.batch * data.seq_len
        self._flops = useful_flops(run, phase)
        hardware.matmul_peak(self._dtype)  # measured now, not while steps run

    def since_last(self, done: int) -> dict[str, float | None]:
        """Speeds over the steps since the last call (at the first, since the loop began)."""
        lap = self._clock.lap()
        steps, self._done = done - self._done, done
        seconds = lap["step"] + lap["data"]
        rate = steps * self._flops / seconds
        return {
            "tokens_per_s": steps * self._tokens / seconds,
            "model_flops_per_s": rate,
            **hardware.utilisation(rate, self._dtype, self._devices),
            "data_wait": lap["data"] / seconds,
            "goodput": self._clock.goodput(),
        }
