"""Waiting for data: time in which the device does nothing."""

import statistics
from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import Speaking

LINES = 20  # of late
MUCH = 0.1  # share of the time


class Waits(Speaking):
    """The share of the steps' time in which the loop waited for its batch."""

    name: ClassVar[str] = "data"

    def look(self, run: Run) -> Finding | None:
        """Slow or not; never a reason for learning nothing."""
        waits = history.series(run.history.train[-LINES:], "data_wait")
        if not waits:
            return None
        share = statistics.fmean(waits)
        text = f"{share:.1%} of the time of steps went into waiting for rows"
        if share <= MUCH:
            return self.says(Verdict.OK, text, data_wait=share)
        change = (
            "a copy of the prepared folder on local disk, --config.data.path; with it on a bucket, a faster disk in "
            "ELECTRA_JAX_CACHE"
        )
        return self.says(Verdict.NOTE, text, change, data_wait=share)
