"""What the train step asks of an objective, and the registry of objectives by name."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from electra_jax.model.electra import ModelSpec, Params
from electra_jax.spec import UserError, unknown_name
from electra_jax.text.tokenizer import SpecialIds

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]  # metric name -> numerator, denominator or histogram, summed over rows
Keys = dict[str, jax.Array]  # "mask", "sample", "dropout": typed keys of one step

KNOWN = {"electra": "electra_jax.objective.electra", "mlm": "electra_jax.objective.mlm"}


class Objective(Protocol):
    """Pure functions of arrays; nothing here depends on how rows are split over devices or micro-batches.

    A batch holds ids, types, docs, word_starts, positions (int32 [B, L]) and rows (int32 [B], the global row numbers
    that address the noise). `corrupt` adds to it what the whole batch decides at once; `totals` are the denominators
    of the loss, so that the gradients of micro-batches add up to the gradient of the whole batch.
    """

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32."""
        ...

    def extra(self) -> dict[str, Any]:
        """What is carried besides parameters (a frozen generator, a baseline); kept in the state and checkpoints."""
        ...

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with the positions to predict and the masked input."""
        ...

    def totals(self, batch: Batch) -> Sums:
        """Denominators of the loss over these rows."""
        ...

    def loss(
        self,
        params: Params,
        batch: Batch,
        totals: Sums,
        keys: Keys,
        step: jax.Array,
        extra: dict[str, Any],
    ) -> tuple[jax.Array, Sums]:
        """This part's share of the loss of the whole batch, and metric sums."""
        ...

    def evaluate(
        self, params: Params, batch: Batch, keys: Keys, extra: dict[str, Any]
    ) -> tuple[Sums, dict[str, jax.Array]]:
        """Metric sums without dropout, and per-token arrays (ids, score, label, valid [B, L]) for rank statistics."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metric values from sums (on the host)."""
        ...


def check_name(section: Any) -> str:
    """The name of the objective in a config section; UserError where it is unknown, or the section is none."""
    if not isinstance(section, Mapping | ConfigDict):
        raise UserError(
            f"config key objective={section!r} is no section; expected a name and options"
        )
    name = section.get("name")
    if name is None:
        raise UserError(
            f"config key objective.name is missing; expected one of: {', '.join(sorted(KNOWN))}"
        )
    if not isinstance(name, str) or name not in KNOWN:
        raise unknown_name("objective", str(name), KNOWN)
    return name


def make(
    section: Mapping[str, Any], model: ModelSpec, vocab_size: int, special: SpecialIds, seq_len: int
) -> Objective:
    """Builds the objective a config section names, for data of this vocabulary and length.

    The section may keep options that only other objectives know, so that `--config.objective.name=mlm` is all it
    takes to train a recipe with another objective; a key that none knows is a UserError.
    """
    name = check_name(section)
    options = {key: value for key, value in section.items() if key != "name"}
    modules = {known: importlib.import_module(path) for known, path in KNOWN.items()}
    fields = {
        known: {f.name for f in dataclasses.fields(m.Options)} for known, m in modules.items()
    }
    foreign = set().union(*fields.values()) - fields[name]
    own = {key: value for key, value in options.items() if key not in foreign}
    return modules[name].make(own, model, vocab_size, special, seq_len)
