"""What pretraining asks of an objective, and the objectives by name."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from electra_jax.learn.learner import Context, Learner, Sums
from electra_jax.model.electra import ModelSpec
from electra_jax.spec import UserError, unknown_name
from electra_jax.text.tokenizer import SpecialIds

KNOWN = {"electra": "electra_jax.objective.electra", "mlm": "electra_jax.objective.mlm"}


class Objective(Learner, Protocol):
    """What pretraining learns: a learner that is also evaluated on held-out rows."""

    def evaluate(self, context: Context) -> tuple[Sums, dict[str, jax.Array]]:
        """Metric sums without dropout, and arrays [B, L] by token (ids, score, label, valid) for rank statistics."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metric values from sums, on the host."""
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
