"""`electra-jax doctor`: reads a workdir, here or on a bucket, and prints what its log shows."""

import json
import tempfile
from pathlib import Path

from electra_jax import remote
from electra_jax.doctor import diagnosis, history
from electra_jax.doctor import run as runs
from electra_jax.workdir.record import RECORD

SICK = 1  # the exit status of a run that is not learning
# All that is read of a workdir: of one on a bucket nothing else is copied.
READ = (RECORD, history.NAME, runs.FINE_TUNED, runs.IMPORTED)


def doctor(workdir: str, as_json: bool) -> tuple[str, int]:
    """The diagnosis as text, and the exit status: SICK where a sign is bad, else 0.

    Raises UserError where there is no workdir of pretraining, or it cannot be read.
    """
    if not remote.is_remote(workdir):
        found = diagnosis.diagnose(runs.opened(workdir))
    else:
        remote.check_access(workdir)
        there = remote.sizes(workdir)
        with tempfile.TemporaryDirectory() as folder, remote.named({folder: workdir}):
            for name in READ:
                if name in there:
                    remote.fetch(remote.join(workdir, name), Path(folder) / name)
            found = diagnosis.diagnose(runs.opened(folder))
    text = json.dumps(found.as_json(), indent=2) if as_json else found.as_text(workdir)
    return text, SICK if found.bad else 0
