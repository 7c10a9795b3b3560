"""What `electra-jax bench` does: a config, a shape, perhaps data -> figures."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from electra_jax.bench import step
from electra_jax.bench.synthetic import synthetic
from electra_jax.data.source import open_prepared
from electra_jax.learn import program as programs
from electra_jax.pretrain import options, sensible
from electra_jax.spec import UserError


def run(
    config: ConfigDict, seq_len: int | None, batch: int | None, data: str | None, rounds: int
) -> dict[str, Any]:
    """Figures of the config's train step on `batch` rows (default: its own) of `seq_len` tokens.

    Rows come from the prepared folder `data`, which fixes the length, or are synthetic: of
    model.positions tokens by default, with a vocabulary of 30,522. Raises UserError for shapes that
    do not fit together or the device.
    """
    spec = options.run_spec(config.to_dict())
    sensible.check_ranges(config)
    if data is not None:
        rows = open_prepared(data)
        if seq_len is not None and seq_len != rows.seq_len:
            raise UserError(
                f"--seq-len {seq_len} but {data} has rows of {rows.seq_len} tokens; leave one of them out"
            )
    else:
        rows = synthetic(seq_len or spec.model.positions)
    train = dataclasses.replace(spec.train, batch=batch or spec.train.batch, phases=())
    spec = dataclasses.replace(spec, train=train)
    if len(rows.source("train")) < spec.train.batch:
        raise UserError(
            f"{rows.path} has {len(rows.source('train'))} rows, fewer than a batch of {spec.train.batch}"
        )
    programs.use_compilation_cache()
    return step.measure(spec, spec.phases(rows)[0], rounds)
