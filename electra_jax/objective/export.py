"""A model that an objective leaves behind, as data: `convert/` makes a folder of it, fine-tuning begins with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from electra_jax.model import sharing
from electra_jax.model.backbone import EncoderSpec

# Classes of transformers that a model can leave as: a logit a token, a word a token, hidden states alone.
DETECTION, MASKED_LM, ENCODER = "ElectraForPreTraining", "ElectraForMaskedLM", "ElectraModel"
CLASSES = (DETECTION, MASKED_LM, ENCODER)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Where in the parameters the model is, and what it is called outside."""

    name: str  # of its folder
    hf_class: str  # the class of transformers that loads it: DETECTION | MASKED_LM | ENCODER
    spec: EncoderSpec  # of its encoder
    what: str  # half a sentence for the model card: "This is {what}."
    embeddings: str = "embeddings"  # path of its embeddings in the parameters
    encoder: str = "encoder"  # path of its encoder
    head: str = ""  # path of its head; none for an encoder alone
    tying: str = ""  # note for who imports it again together with the model it shares with; empty: none needed
    # A detection head's logits are energies: minus their sum is a pseudo-log-likelihood, up to a constant a token.
    energy: bool = False
    # Parameters that no class of transformers has and that stay behind, by the first name of their paths.
    beside: tuple[str, ...] = ()
    added: str = ""  # path of embeddings whose tables are added to those at `embeddings`, which are deltas to them
    trained: bool = True  # False: nothing was learned by it, and it is not written


def whole(params: Mapping[str, np.ndarray], exports: Sequence[Export]) -> dict[str, np.ndarray]:
    """The parameters by path as their models leave: sums in place of deltas."""
    return _added(params, exports, lambda delta, table: table + delta)


def deltas(params: Mapping[str, np.ndarray], exports: Sequence[Export]) -> dict[str, np.ndarray]:
    """The parameters by path as they are learned, from those of models that came in: what `whole` had before it."""
    return _added(params, exports, sharing.difference)


def _added(
    params: Mapping[str, np.ndarray],
    exports: Sequence[Export],
    of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    found = dict(params)
    for export in exports:
        for path in params if export.added else ():
            if sharing.is_table(path, export.embeddings):
                table = params[f"{export.added}/{path.rpartition('/')[2]}"]
                found[path] = of(params[path], table)
    return found
