"""A user's own objective, tried on shapes alone before anything is compiled."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax import userfile
from electra_jax.data.baselines import MODELS
from electra_jax.learn import arrays, mesh
from electra_jax.learn import parts as partition
from electra_jax.learn.learner import Context
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part
from electra_jax.objective.export import CLASSES, Export
from electra_jax.objective.protocol import MEMBERS, Metric

FIELDS = ("ids", "types", "docs", "word_starts", "positions")  # of a batch, int32 [B, L]
USES = ("mask", "sample", "dropout")  # that a step has keys for
ROWS = (2, 4)  # of the batches tried: a shape of a sum that follows them is no sum
_OPTIM = OptimSpec(
    name="adam",
    peak_lr=1e-3,
    warmup=0,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
)


def check(objective: Any, path: str, what: str, seq_len: int) -> None:
    """Raises UserError, naming file, member, what was expected and found, for an objective that cannot be trained.

    `what` names the file. Nothing is computed: every function is called with shapes.
    """
    for name, expected in MEMBERS.items():
        if not hasattr(objective, name):
            raise userfile.wrong(what, name, expected, f"none in {type(objective).__name__}")
    Trial(objective, path, what, seq_len).run()


class Trial:
    """One objective and the shapes of its parameters."""

    def __init__(self, objective: Any, path: str, what: str, seq_len: int) -> None:
        self._objective, self._path, self._what, self._seq_len = objective, path, what, seq_len

    def run(self) -> None:
        """Calls every member in the order in which training does."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        self._params = params = self._shapes("init", key)
        self._refuse("init", params, _is_tree_of(params, jnp.float32))
        for name in arrays.flatten(params):
            fits = mesh.is_placed(f"params/{name}")
            self._refuse("init", f"a parameter {name}", fits, mesh.NAMES)
        carried = self._shapes("carried", params)
        self._refuse("carried", carried, isinstance(carried, dict))
        self._parts()
        first, second = (self._losses(rows, carried) for rows in ROWS)
        for name in first:
            same = first[name].shape == second[name].shape
            found = (
                f"the sum {name!r} of shape {list(first[name].shape)} for {ROWS[0]} rows and of "
            )
            self._refuse("loss", f"{found}{list(second[name].shape)} for {ROWS[1]}", same)
        self._host(first)
        self._refuse("shown", self._objective.shown, _are_metrics(self._objective.shown))

    def _parts(self) -> None:
        found = self._call("parts", Part(optim=_OPTIM, steps=1))
        right = isinstance(found, Sequence) and found and all(isinstance(p, Part) for p in found)
        self._refuse("parts", found, bool(right))
        with userfile.calling(self._path, self._what, "parts", MEMBERS["parts"]):
            partition.split(found, self._params)

    def _losses(self, rows: int, carried: Any) -> Mapping[str, Any]:
        shape = jax.ShapeDtypeStruct((rows, self._seq_len), jnp.int32)
        given = dict.fromkeys(FIELDS, shape) | {"rows": jax.ShapeDtypeStruct((rows,), jnp.int32)}
        keys = jax.eval_shape(lambda: {use: jax.random.key(0) for use in USES})
        batch = self._shapes("prepare", given, keys)
        kept = isinstance(batch, dict) and all(batch.get(name) == given[name] for name in given)
        self._refuse("prepare", batch, kept)
        for name, x in batch.items():
            self._refuse("prepare", f"{name!r}: {userfile.described(x)}", x.shape[:1] == (rows,))
        totals = self._shapes("totals", batch)
        self._refuse(
            "totals", totals, _is_sums(totals) and all(x.shape == () for x in totals.values())
        )
        step: Any = jax.ShapeDtypeStruct((), jnp.int32)
        context = Context(self._params, batch, totals, keys, step, carried)
        loss = self._shapes("loss", context)
        right = isinstance(loss, tuple) and len(loss) == 2 and getattr(loss[0], "shape", None) == ()
        self._refuse("loss", loss, right and loss[0].dtype == jnp.float32 and _is_sums(loss[1]))
        after = self._shapes("carry", context, self._params, loss[1])
        self._refuse(
            "carry",
            after,
            _same(after, carried),
            f"the tree of `carried`, {userfile.described(carried)}",
        )
        said = self._shapes("evaluate", context)
        right = isinstance(said, tuple) and len(said) == 2 and _is_sums(said[0])
        self._refuse("evaluate", said, right and _is_by_token(said[1], shape.shape))
        self._tokens = {n: np.zeros(2, x.dtype) for n, x in said[1].items() if n != "valid"}
        return loss[1]

    def _host(self, sums: Mapping[str, Any]) -> None:
        """What is asked on the host."""
        ones = {name: np.ones(x.shape, x.dtype) for name, x in sums.items()}
        values = self._call("metrics", ones)
        right = isinstance(values, dict) and all(
            isinstance(x, float | int) for x in values.values()
        )
        self._refuse("metrics", values, right)
        guessed = self._call("beside_counting", dict.fromkeys(MODELS, (1.0, 0.5)))
        ranked = self._call("rank_metrics", self._tokens, None) if self._tokens else {}
        self._refuse("beside_counting", guessed, isinstance(guessed, dict))
        self._refuse("rank_metrics", ranked, isinstance(ranked, dict))
        count = self._call("flops", self._seq_len)
        self._refuse("flops", count, isinstance(count, float | int) and 0 < count < math.inf)
        exports = self._call("exports")
        listed = (
            isinstance(exports, Sequence)
            and exports
            and all(isinstance(e, Export) for e in exports)
        )
        self._refuse("exports", exports, bool(listed))
        for export in exports:
            self._refuse("exports", f"hf_class={export.hf_class!r}", export.hf_class in CLASSES)
            for place in (
                export.embeddings,
                export.encoder,
                *([export.head] if export.head else []),
            ):
                found = f"{place!r} in {export.name!r}, where the parameters have {', '.join(self._params)}"
                self._refuse("exports", found, place in self._params)

    def _shapes(self, member: str, *arguments: Any) -> Any:
        def traced(*arguments: Any) -> Any:
            return getattr(self._objective, member)(*arguments)

        return self._asked(member, lambda: jax.eval_shape(traced, *arguments))

    def _call(self, member: str, *arguments: Any) -> Any:
        return self._asked(member, lambda: getattr(self._objective, member)(*arguments))

    def _asked(self, member: str, function: Callable[[], Any]) -> Any:
        with userfile.calling(self._path, self._what, member, MEMBERS[member]):
            return function()

    def _refuse(self, member: str, found: Any, right: Any, expected: str = "") -> None:
        if not right:
            said = found if isinstance(found, str) else userfile.described(found)
            raise userfile.wrong(self._what, member, expected or MEMBERS[member], said)


def _is_tree_of(tree: Any, dtype: Any) -> bool:
    leaves = jax.tree.leaves(tree)
    return isinstance(tree, dict) and bool(leaves) and all(x.dtype == dtype for x in leaves)


def _is_sums(sums: Any) -> bool:
    return isinstance(sums, dict) and all(hasattr(x, "shape") for x in sums.values())


def _is_by_token(tokens: Any, shape: tuple[int, ...]) -> bool:
    if not isinstance(tokens, dict) or any(
        getattr(x, "shape", None) != shape for x in tokens.values()
    ):
        return False
    return not tokens or ("valid" in tokens and tokens["valid"].dtype == jnp.bool_)


def _are_metrics(shown: Any) -> bool:
    try:
        return all(isinstance(metric, Metric) and metric.form.format(1.0) for metric in shown)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False


def _same(one: Any, other: Any) -> bool:
    try:
        return arrays.describe(one) == arrays.describe(other)
    except (AttributeError, TypeError):
        return False
