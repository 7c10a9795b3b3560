#!/usr/bin/env python3
"""What counting tokens achieves on the held-out rows of a prepared corpus, as JSON.

- Masked-LM loss (nats) and accuracy of a unigram and of an interpolated bigram model, both counted
  on the training rows. The bigram sees the true token to the left, which a masked LM often does
  not. Both are also given with the 15% of chosen positions that masking leaves visible copied
  (`_copying`), as every masked LM learns to do: those are the numbers to beat.
- AUC of low unigram (and bigram) probability as a sign that a token was replaced: for replacements
  drawn from the unigram model, and, with --workdir, for those that the run's own generator makes in
  held-out evaluation, which are the ones its discriminator's AUC is measured on.

    python tools/baselines.py --data data/ --workdir run/ --output baselines.json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files
from electra_jax.data import ngrams
from electra_jax.data.ngrams import Ngrams
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import checkpoint, mesh
from electra_jax.pretrain import baselines, options, program
from electra_jax.spec import UserError
from electra_jax.workdir.record import read_record

SYNTHETIC_ROWS = 2000  # held-out rows that the unigram model corrupts


def main(argv: list[str] | None = None) -> int:
    """Prints the JSON (and writes it with --output); 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder made by electra-jax prepare")
    parser.add_argument("--workdir", help="a run on this data: judge its generator's replacements")
    parser.add_argument("--step", type=int, help="checkpoint of the run (default: the newest)")
    parser.add_argument(
        "--train-rows", type=int, metavar="N", help="count only N rows, evenly spread"
    )
    parser.add_argument("--output", help="write the JSON here too")
    given = parser.parse_args(argv)
    try:
        result = measure(given.data, given.workdir, given.step, given.train_rows)
        if given.output:
            files.write_json(Path(given.output), result)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


def measure(
    data: str, folder: str | None = None, step: int | None = None, train_rows: int | None = None
) -> dict[str, Any]:
    """All the numbers; see the docstring of this file."""
    prepared = open_prepared(data)
    train, valid = prepared.source("train"), prepared.source("valid")
    if not len(valid):
        raise UserError(f"{data} has no held-out rows; prepare it with --valid-fraction")
    ids = prepared.special
    special = (ids.pad, ids.cls, ids.sep, ids.mask)
    model = ngrams.fit(train, prepared.vocab_size, special, train_rows)
    held_out = ngrams.count(valid, np.arange(len(valid)), prepared.vocab_size, special)
    rows = valid.rows(np.arange(min(len(valid), SYNTHETIC_ROWS)))
    fake, replaced = baselines.corrupt(model, rows, seed=0)
    result = {
        "data": {"path": str(data), "fingerprint": prepared.fingerprint},
        "train_rows": min(len(train), train_rows or len(train)),
        "valid_rows": len(valid),
        "valid_tokens": held_out.total,
        "smoothing_k": model.k,
        "masked_lm": baselines.language_model(model, held_out),
        "detector": {"unigram_replacements": _detect(model, rows["docs"], fake, replaced)},
    }
    if folder is not None:
        result["detector"]["generator_replacements"] = _of_run(model, prepared, Path(folder), step)
    return result


def _detect(
    model: Ngrams, docs: np.ndarray, fake: np.ndarray, replaced: np.ndarray
) -> dict[str, float]:
    found = baselines.detector(model, docs, fake, replaced)
    return {
        "unigram_auc": found["unigram"],
        "bigram_auc": found["bigram"],
        "replaced_fraction": float(replaced[docs > 0].mean()),
    }


def _of_run(model: Ngrams, prepared: Prepared, folder: Path, step: int | None) -> dict[str, Any]:
    """The detector on what the run's generator makes of the rows, masks and samples of evaluation."""
    record = read_record(folder)
    if record["data"]["fingerprint"] != prepared.fingerprint:
        raise UserError(f"the run in {folder} was not started on {prepared.path}")
    run = options.run_spec(record["config"])
    if run.objective["name"] != "electra":
        raise UserError(f"the run in {folder} has no discriminator to compare with")
    compiled = program.build(
        run, run.phases(prepared)[-1], mesh.build(mesh.MeshSpec(data=-1, fsdp=1))
    )
    found, params, _ = checkpoint.read_params(folder, step)
    params, t = compiled.place_params(params), run.train
    carried = compiled.objective.carried(params)
    valid = prepared.source("valid")
    made = baselines.replacements(compiled, params, carried, valid, t.batch, t.eval_batches)
    there = made.docs > 0
    auc = baselines.exact_auc(made.score[there], made.replaced[there])
    values = _detect(model, made.docs, made.fake, made.replaced)
    return {"step": found, "discriminator_auc": auc, **values}


if __name__ == "__main__":
    sys.exit(main())
