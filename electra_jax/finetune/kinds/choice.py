"""Multiple choice: which of a few texts follows or answers a context."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from electra_jax.convert.entries import Entry, Shape, linear
from electra_jax.finetune.heads import FirstToken, HeadSpec, Outputs, chosen, dense, of_first
from electra_jax.finetune.kinds.kind import Kind, most_frequent
from electra_jax.finetune.rows import Found, Split
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gelu import gelu
from electra_jax.ops.noise import Noise
from electra_jax.spec import UserError
from electra_jax.tasks import features, outputs
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer


class Summary(nn.Module):
    """`ElectraForMultipleChoice`: [CLS], dense, GELU, dropout, one logit a choice."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = gelu(dense(s, hidden_BxLxD.shape[-1], "dense")(hidden_BxLxD[:, 0]))
        x_BxD = noise_ops.dropout(x_BxD, s.dropout, noise and noise.at(0))
        return {"logits": dense(s, 1, "out", last=True)(x_BxD)}


class Choice(Kind):
    """The right one of a group of rows; "logits" are [B, C] over the choices."""

    name = "choice"
    hf_class = "ElectraForMultipleChoice"
    modern_class = "ModernBertForMultipleChoice"
    pipeline = "multiple-choice"

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """A group of rows an example; "label" is which is right, UNKNOWN where nobody says."""
        return features.of_choices(examples, tokenizer, room)

    def outputs(self, labels: Sequence[str]) -> int:
        """One a row."""
        return 1

    def head(self, spec: HeadSpec) -> nn.Module:
        """transformers' head, or the original's linear layer on [CLS]."""
        return chosen(spec, Summary, FirstToken, of_first)

    def border(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """Two linear layers."""
        inner = linear(f"{ours}/dense", "sequence_summary.summary", shape.width, shape.width)
        return [*inner, *linear(f"{ours}/out", "classifier", shape.width, 1)]

    def config(self, head: HeadSpec, labels: Sequence[str]) -> dict[str, Any]:
        """The dropout before the last layer."""
        return {"summary_last_dropout": head.dropout}

    def predictions(self, data: Any, split: Split, said: Found) -> list[Any]:
        """The number of the choice, from 0."""
        return said["logits"].argmax(axis=-1).tolist()

    def read_predictions(
        self, task: Task, path: str, examples: Sequence[Any], ids: Sequence[str]
    ) -> list[Any]:
        """Numbers of choices."""
        found = outputs.read_labels(path, ids)
        for index, text in zip(ids, found, strict=True):
            if not text.isdigit():
                raise UserError(
                    f"{path}: id {index} has {text!r}; expected the number of a choice, from 0"
                )
        return [int(text) for text in found]

    def one_answer(self, data: Any, labels: Mapping[str, np.ndarray]) -> Any:
        """The number that is right most often."""
        return most_frequent(labels["label"])

    def describe(self, task: Task, answer: Any) -> str:
        """The number."""
        return f"choice {answer}"


kind = Choice()
