"""What counting tokens achieves on each held-out row of a prepared folder: the least that a model has to do.

`prepare` writes it beside the rows as baselines.npz, from what it wrote there: the same for any number of workers and
any engine. At most 8.4 million places of training rows are counted, evenly spread, so that neither time nor memory
grow with the corpus: some 1.5 s of one core and 300 MB at most. An older folder is counted when somebody asks.
"""

import dataclasses
import io
import zipfile
import zlib
from pathlib import Path
from typing import Self

import numpy as np

from electra_jax import files
from electra_jax.data import ngrams
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.spec import UserError

NAME = "baselines.npz"
MODELS = ("unigram", "bigram")
# What numpy raises for a file that is cut short, changed, or something else.
_DAMAGES = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError),
    *(ValueError, KeyError, TypeError, AttributeError),
)
MOST_PLACES = 2**23  # tokens, padding included, of the rows counted; of the rows judged likewise


@dataclasses.dataclass(frozen=True)
class Counted:
    """Sums of the first N held-out rows over the tokens that masking may choose, and the unigram model itself."""

    counted_rows: int  # training rows
    tokens_N: np.ndarray  # int32
    loss_MxN: np.ndarray  # float32, nats; models in the order of MODELS
    hits_MxN: np.ndarray  # int32, tokens that are the most probable one
    log_unigram_V: np.ndarray  # float32, 0 for special tokens, which are known to be original

    def over(self, rows: int) -> dict[str, tuple[float, float]]:
        """By model: (loss in nats, accuracy) a token of the first `rows` held-out rows."""
        tokens = max(1, int(self.tokens_N[:rows].sum()))
        return {
            name: (
                float(loss_N[:rows].sum(dtype=float)) / tokens,
                int(hits_N[:rows].sum()) / tokens,
            )
            for name, loss_N, hits_N in zip(MODELS, self.loss_MxN, self.hits_MxN, strict=True)
        }

    def save(self, path: Path) -> None:
        """Writes the file."""
        held = io.BytesIO()
        np.savez_compressed(held, **dataclasses.asdict(self))
        files.write_bytes(path, held.getvalue())

    @classmethod
    def load(cls, path: Path, vocab_size: int) -> Self:
        """Reads the file. Raises UserError when it is not one that `save` wrote for this vocabulary."""
        try:
            with np.load(path, allow_pickle=False) as held:
                found = {field.name: held[field.name] for field in dataclasses.fields(cls)}
            made = cls(int(found.pop("counted_rows")), **found)
            rows = made.tokens_N.size
            shapes = [(rows,), (len(MODELS), rows), (len(MODELS), rows), (vocab_size,)]
            arrays = [made.tokens_N, made.loss_MxN, made.hits_MxN, made.log_unigram_V]
            if [array.shape for array in arrays] != shapes or not all(
                array.dtype.kind in "if" and np.isfinite(array).all() for array in arrays
            ):
                raise ValueError("arrays of another shape or type")
        except _DAMAGES as error:
            raise UserError(
                f"{path} is damaged ({error}); copy the folder again, or remove this file: the tokens are then "
                "counted anew"
            ) from None
        return made


def write(folder: Path) -> None:
    """Writes what counting achieves on the held-out rows of this prepared folder, if it has any."""
    if (found := count(open_prepared(folder))) is not None:
        found.save(folder / NAME)


def of(data: Prepared) -> Counted | None:
    """What the folder holds, else what is counted now; None where rows to count or to judge are missing."""
    path = data.path / NAME
    return Counted.load(path, data.vocab_size) if path.is_file() else count(data)


def count(data: Prepared) -> Counted | None:
    """Counts the training rows and judges the held-out ones; None where either are missing."""
    train, valid, s = data.source("train"), data.source("valid"), data.special
    most = max(2, MOST_PLACES // data.seq_len)
    if not len(valid):
        return None
    try:
        model = ngrams.fit(train, data.vocab_size, (s.pad, s.cls, s.sep, s.mask), most)
    except ngrams.TooFew:
        return None
    best_V = model.best_after()
    blocks = ngrams.read(valid, np.arange(min(most, len(valid))), "judging rows")
    sums = [_judge(model, best_V, rows) for rows in blocks]
    tokens_N, loss_MxN, hits_MxN = (np.concatenate(part, -1) for part in zip(*sums, strict=True))
    log_V = np.log(np.where(model.unigram_V > 0, model.unigram_V, 1.0)).astype(np.float32)
    return Counted(min(most, len(train)), tokens_N, loss_MxN, hits_MxN, log_V)


def _judge(
    model: ngrams.Ngrams, best_V: np.ndarray, rows: ngrams.Rows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens int32 [N], loss float32 [M, N], hits int32 [M, N]) of rows [N, L]."""
    chosen = ngrams.candidates(rows, model.special)
    left_NxL = ngrams.left_neighbours(rows["ids"], rows["docs"], model.special[0])
    at, left, token = np.nonzero(chosen)[0], left_NxL[chosen], rows["ids"][chosen]

    def by_row(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, len(chosen))

    log_p = (model.log_unigram(token), model.log_bigram(left, token))
    hits = (token == model.unigram_V.argmax(), token == best_V[left])
    return (
        by_row(np.ones(len(at))).astype(np.int32),
        np.stack([by_row(-values) for values in log_p]).astype(np.float32),
        np.stack([by_row(values) for values in hits]).astype(np.int32),
    )
