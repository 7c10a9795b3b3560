"""Question answering: a span of a context, or that there is no answer in it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax import files
from electra_jax.convert.entries import Entry, Shape, linear
from electra_jax.finetune.heads import HeadSpec, Outputs, chosen, dense, of_tokens
from electra_jax.finetune.kinds.kind import Data, Kind, cross_entropy, no_probabilities
from electra_jax.finetune.rows import Found, Split
from electra_jax.objective.losses import binary_cross_entropy
from electra_jax.ops.gelu import gelu
from electra_jax.ops.noise import Noise
from electra_jax.tasks import answers, features, metrics, outputs
from electra_jax.tasks.answers import Answers, Candidates
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer

HIDDEN_QA = 512  # width of the original's two hidden layers in question answering (qa_tasks.py)
EXCLUDED = -1e9  # logit of a position that cannot be chosen


class Span(nn.Module):
    """`ElectraForQuestionAnswering`: a linear layer gives each token a start and an end logit.

    Padding is excluded, so that the loss does not depend on how long a batch was made.
    """

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        return _present(dense(self.spec, 2, "out", last=True)(hidden_BxLxD), batch)


class ModernSpan(nn.Module):
    """`ModernBertForQuestionAnswering`: its head gives each token a start and an end logit; padding is excluded."""

    spec: HeadSpec

    def setup(self) -> None:
        self.tokens = of_tokens(self.spec)
        nn.share_scope(self, self.tokens)

    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        """Start and end [B, L]."""
        return _present(self.tokens(hidden_BxLxD, noise, batch, training)["logits"], batch)


def _present(logits_BxLx2: jax.Array, batch: Outputs) -> Outputs:
    present_BxL = batch["docs"] > 0
    return {
        name: jnp.where(present_BxL, logits_BxLx2[..., i], EXCLUDED)
        for i, name in enumerate(("start", "end"))
    }


class JointSpan(nn.Module):
    """The original's question answering (qa_tasks.py), by default with the end given the start.

    Only tokens of the context and position 0 can be chosen. In training the end is predicted from
    the true start; in prediction from each of the `beam` best starts.
    """

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        allowed_BxL = ((batch["types"] == 1) & (batch["docs"] > 0)).at[:, 0].set(True)
        start_BxL = dense(s, 1, "start", last=True)(hidden_BxLxD)[..., 0]
        start_BxL = jnp.where(allowed_BxL, start_BxL, EXCLUDED)
        out = {"start": start_BxL}
        if s.answerable:
            share_BxL = jax.nn.softmax(start_BxL, axis=-1).astype(hidden_BxLxD.dtype)
            mean_BxD = jnp.einsum("bl,bld->bd", share_BxL, hidden_BxLxD)
            both_Bx2D = jnp.concatenate([hidden_BxLxD[:, 0], mean_BxD], axis=-1)
            inner_BxJ = gelu(dense(s, HIDDEN_QA, "null_hidden")(both_Bx2D))
            out["null"] = dense(s, 1, "null", last=True)(inner_BxJ)[..., 0]
        end = dense(s, 1, "end", last=True)
        if not s.joint:
            return out | {"end": jnp.where(allowed_BxL, end(hidden_BxLxD)[..., 0], EXCLUDED)}
        # A layer over (start token, token) in two halves: each is applied once, not once a pair.
        of_start = nn.Dense(HIDDEN_QA, dtype=s.dtype, kernel_init=_half_glorot, name="hidden_start")
        of_token_BxLxJ = nn.Dense(
            HIDDEN_QA,
            dtype=s.dtype,
            use_bias=False,
            kernel_init=_half_glorot,
            name="hidden_token",
        )(hidden_BxLxD)

        def end_given(start_B: jax.Array) -> jax.Array:
            token_BxD = jnp.take_along_axis(hidden_BxLxD, start_B[:, None, None], axis=1)[:, 0]
            inner_BxLxJ = gelu(of_start(token_BxD)[:, None] + of_token_BxLxJ)
            return jnp.where(allowed_BxL, end(inner_BxLxJ)[..., 0], EXCLUDED)

        if training:
            return out | {"end": end_given(batch["start"])}
        return out | _beam(start_BxL, end_given, min(s.beam, start_BxL.shape[1]))


def _half_glorot(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Glorot uniform for one half of a kernel that has twice as many rows."""
    return nn.initializers.glorot_uniform()(key, (2 * shape[0], shape[1]), dtype)[: shape[0]]


def _beam(start_BxL: jax.Array, end_given: Callable[[jax.Array], jax.Array], beam: int) -> Outputs:
    """The best starts, and for each of them the best ends, with their log-probabilities."""
    score_BxK, start_BxK = jax.lax.top_k(jax.nn.log_softmax(start_BxL, axis=-1), beam)
    scores, ends = [], []
    for k in range(
        beam
    ):  # a start at a time: all of them together would need beam times the memory
        logp_BxL = jax.nn.log_softmax(end_given(start_BxK[:, k]), axis=-1)
        best_BxK, at_BxK = jax.lax.top_k(logp_BxL, beam)
        scores.append(best_BxK)
        ends.append(at_BxK)
    return {
        "start_top": start_BxK,
        "start_score": score_BxK,
        "end_top": jnp.stack(ends, axis=1),
        "end_score": jnp.stack(scores, axis=1),
    }


class Qa(Kind):
    """A span of tokens a window: "start" and "end" [B, L].

    With the original's answerability classifier also "null" [B], which is positive where a question has no answer;
    with its joint head in prediction "start_top" [B, K], "start_score" [B, K], "end_top" [B, K, K] and "end_score"
    [B, K, K], log-probabilities, in place of "end".
    """

    name = "qa"
    hf_class = "ElectraForQuestionAnswering"
    modern_class = "ModernBertForQuestionAnswering"
    pipeline = "question-answering"
    suffix = ".json"
    taught = ("start",)

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """Windows of the context; "start" and "end" are tokens of the row, "impossible" says that there is none."""
        return features.of_questions(examples, tokenizer, room, training)

    def outputs(self, labels: Sequence[str]) -> int:
        """Start and end."""
        return 2

    def head(self, spec: HeadSpec) -> nn.Module:
        """transformers' head, or the original's."""
        return chosen(spec, Span, JointSpan, ModernSpan)

    def border(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """One linear layer."""
        return linear(f"{ours}/out", "qa_outputs", shape.width, outputs)

    def loss(self, spec: HeadSpec, out: Outputs, batch: Outputs) -> jax.Array:
        """The mean of start's and end's cross-entropy, plus the weighted loss of the classifier where there is one."""
        loss_B = (
            cross_entropy(out["start"], batch["start"]) + cross_entropy(out["end"], batch["end"])
        ) / 2
        if "null" in out:
            loss_B += spec.answerable_weight * binary_cross_entropy(
                out["null"], batch["impossible"].astype(jnp.float32)
            )
        return jnp.sum(loss_B * batch["weight"])

    def predictions(self, data: Data, split: Split, said: Found) -> Any:
        """The texts by id."""
        return spans(split, said).texts

    def probabilities(self, data: Data, split: Split, said: Found) -> list[np.ndarray]:
        """None: the n best texts have theirs."""
        raise no_probabilities(data.task, "texts")

    def scores(self, data: Data, split: Split, said: Found) -> dict[str, Any]:
        """The task's metrics, by the odds of no answer where questions may have none."""
        found = spans(split, said)
        if not data.task.impossible:
            return self.score(data.task, split.examples, found.texts)
        options = {"null_odds": found.null_odds, "null_threshold": null_threshold(said)}
        return self.score(data.task, split.examples, found.texts, **options)

    def score(
        self, task: Task, references: Sequence[Any], predictions: Any, **options: Any
    ) -> dict[str, Any]:
        """The official scores of texts by id; `null_odds` and `null_threshold` as in `qa_metrics.squad2`."""
        return metrics.of_answers(task, references, predictions, **options)

    def write(self, data: Data, name: str, split: Split, said: Found, folder: Path) -> None:
        """A folder NAME with what the official scripts take."""
        (folder / name).mkdir(parents=True, exist_ok=True)
        outputs.answers(folder / name, spans(split, said), _limit(data, said))

    def write_file(
        self,
        data: Data,
        split: Split,
        said: Found,
        path: str | Path,
        with_probabilities: bool = False,
    ) -> None:
        """JSON id -> text; with probabilities the n best texts with theirs, and the odds of no answer."""
        answered = spans(split, said)
        limit = _limit(data, said)
        texts = answered.texts if limit is None else answered.with_threshold(limit)
        every = {
            key: {
                "text": text,
                "null_odds": answered.null_odds[key],
                "n_best": answered.n_best[key],
            }
            for key, text in texts.items()
        }
        files.write_json(path, every if with_probabilities else texts)

    def score_file(
        self, task: Task, path: str, examples: Sequence[Any], odds: str | None, threshold: float
    ) -> dict[str, Any]:
        """The scores; questions that are missing are wrong, and said."""
        ids = [example.id for example in examples]
        found = outputs.read_answers(path, ids)
        missing = len(ids) - len(found)
        if missing:
            print(f"{path}: {missing} questions missing, taken as wrong", file=sys.stderr)
        null = None if odds is None else outputs.read_answers(odds, ids, float)
        return self.score(task, examples, found, null_odds=null, null_threshold=threshold)

    def one_answer(self, data: Data, labels: Mapping[str, np.ndarray]) -> Any:
        """No answer."""
        return ""

    def always(self, answer: Any, examples: Sequence[Any]) -> Any:
        """The same text for every question."""
        return {example.id: answer for example in examples}

    def describe(self, task: Task, answer: Any) -> str:
        """Always the same."""
        return "no answer"


def spans(split: Split, said: Found) -> Answers:
    """The answers to every question: transformers' rule for its head, the original's for its own."""
    made, begin = split.features, split.rows.begin
    assert made.windows is not None

    def candidates(window: int) -> Candidates:
        here = slice(begin[window], begin[window + 1])
        if "start_top" in said:
            # Without the classifier, twice how probable the start is at [CLS] speaks for no answer.
            null = said["null"][window] if "null" in said else 2 * _log_share(said["start"][here])
            return answers.from_beam(
                said["start_top"][window],
                said["start_score"][window],
                said["end_top"][window],
                said["end_score"][window],
                float(null),
            )
        found = answers.from_logits(said["start"][here], said["end"][here])
        return found._replace(null=float(said["null"][window])) if "null" in said else found

    windows = map(candidates, range(len(made)))
    return answers.decode(split.examples, made.windows, windows, relative="null" not in said)


def _log_share(start_L: np.ndarray) -> float:
    """The log-probability of the first position."""
    shifted_L = start_L.astype(np.float64) - start_L.max()
    return float(shifted_L[0] - np.log(np.exp(shifted_L).sum()))


def null_threshold(said: Found) -> float:
    """Odds of no answer above which none is given: the original's of its classifier, else 0."""
    return answers.NULL_THRESHOLD if "null" in said else 0.0


def _limit(data: Data, said: Found) -> float | None:
    return null_threshold(said) if data.task.impossible else None


kind = Qa()
