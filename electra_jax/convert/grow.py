"""A trained model made to fit something new: another vocabulary, longer rows, fewer layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from electra_jax.model.electra import Dimensions
from electra_jax.model.options import MODERN
from electra_jax.spec import UserError
from electra_jax.text.special import NAMES
from electra_jax.text.tokenizer import Tokenizer

Flat = dict[str, np.ndarray]
LEAST_POSITIONS, MOST_POSITIONS = 8, 2**20
_BODY = ("discriminator", "encoder")  # the encoder that is kept, by objective


@dataclass(frozen=True, kw_only=True)
class Change:
    """What to make of a model: nothing where everything is as it is by default."""

    tokenizer: Tokenizer | None = None
    positions: int = 0  # of a row, at most; 0: as many as there are
    layers: int = 0  # to keep of the discriminator; 0: all
    first: bool = False  # keep the first of the layers, not evenly spaced ones

    def __bool__(self) -> bool:
        return self.tokenizer is not None or self.positions > 0 or self.layers > 0


def layers_of(text: str) -> tuple[int, bool]:
    """(layers, whether the first) of "6" (evenly spaced) or "first:6". UserError for anything else."""
    found = re.fullmatch(r"(first:)?([1-9]\d{0,3})", text)
    if found is None:
        raise UserError(f"--layers {text} is not a number such as 6, or first:6")
    return int(found[2]), found[1] is not None


def grow(
    change: Change, dims: Dimensions, params: Flat, old: Tokenizer
) -> tuple[Dimensions, Flat, list[str]]:
    """(dimensions, flat parameters, what was done, a line each) of the changed model."""
    said: list[str] = []
    params = dict(params)
    if change.layers:
        dims, params = _fewer_layers(change, dims, params, said)
    if change.positions:
        dims, params = _positions(change.positions, dims, params, said)
    if change.tokenizer is not None:
        dims, params = _vocabulary(change.tokenizer, dims, params, old, said)
    return dims, params, said


def kept_layers(there: int, wanted: int, first: bool) -> list[int]:
    """The layers to keep: the first, or evenly spaced ones from the first to the last."""
    if first or wanted == 1:
        return list(range(wanted))
    return [round(i * (there - 1) / (wanted - 1)) for i in range(wanted)]


def _fewer_layers(
    change: Change, dims: Dimensions, params: Flat, said: list[str]
) -> tuple[Dimensions, Flat]:
    there = dims.spec.layers
    if change.layers > there:
        raise UserError(
            f"--layers {change.layers}: the model has {there}; layers are only left out"
        )
    kept = kept_layers(there, change.layers, change.first)
    if dims.spec.family == MODERN and kept != list(range(change.layers)):
        raise UserError(
            f"--layers {change.layers}: of a modern encoder every few layers see the whole row, counted from the "
            f"lowest, and others in between would change what they see; give --layers first:{change.layers}"
        )
    found: Flat = {}
    for path, value in params.items():
        layer = re.match(rf"({'|'.join(_BODY)})/layer_(\d+)/(.*)", path)
        if layer is None:
            found[path] = value
        elif int(layer[2]) in kept:
            found[f"{layer[1]}/layer_{kept.index(int(layer[2]))}/{layer[3]}"] = value
    ratio = dims.generator.layers / change.layers
    spec = replace(dims.spec, layers=change.layers, generator_layers=ratio)
    said.append(f"kept {change.layers} of {there} layers: {', '.join(map(str, kept))}")
    return Dimensions(spec, dims.vocab_size), found


def _positions(
    wanted: int, dims: Dimensions, params: Flat, said: list[str]
) -> tuple[Dimensions, Flat]:
    """Position p beyond the table takes row 1 + (p - 1) mod (P - 1): the table again, without [CLS]'s own row."""
    if not LEAST_POSITIONS <= wanted <= MOST_POSITIONS:
        raise UserError(
            f"--positions {wanted:,} must be in [{LEAST_POSITIONS}, {MOST_POSITIONS:,}]"
        )
    there = dims.spec.positions
    at = np.arange(wanted)
    if wanted > there and there > 1:
        at = np.where(at < there, at, 1 + (at - 1) % (there - 1))
    for path in [path for path in params if path.endswith("embeddings/position")]:
        params[path] = params[path][at]
    if dims.spec.family == MODERN:
        said.append(f"rows of {there:,} tokens became rows of {wanted:,}: positions are rotations")
        return Dimensions(replace(dims.spec, positions=wanted), dims.vocab_size), params
    how = "continued from the second row on" if wanted > there else "cut"
    said.append(f"{there:,} positions became {wanted:,}, {how}")
    return Dimensions(replace(dims.spec, positions=wanted), dims.vocab_size), params


def _vocabulary(
    new: Tokenizer, dims: Dimensions, params: Flat, old: Tokenizer, said: list[str]
) -> tuple[Dimensions, Flat]:
    sources = pieces(new, old)
    made = Dimensions(replace(dims.spec, vocab_rows=0), new.size)
    tables = [path for path in params if path.endswith("embeddings/word")]
    tables += [path for path in params if path in ("generator_head/bias", "head/bias")]
    for path in tables:
        before = params[path][: old.size]
        everything = before.mean(axis=0)
        after = np.zeros((made.padded_rows, *before.shape[1:]), np.float32)
        for number, ids in enumerate(sources):
            after[number] = before[ids].mean(axis=0) if ids else everything
        params[path] = after
    same = sum(1 for token, ids in zip(_tokens(new), sources, strict=True) if _is(old, ids, token))
    known = sum(1 for ids in sources if ids)
    said.append(
        f"of {new.size:,} tokens {same:,} keep their row, {known - same:,} begin as the mean of the pieces that the "
        f"old tokenizer cuts them into, {new.size - known:,} as the mean of all rows"
    )
    return made, params


def pieces(new: Tokenizer, old: Tokenizer) -> list[list[int]]:
    """For every token of `new` the old ids its row begins as the mean of; [] where the old one knows no part of it."""
    ids = {token: number for number, token in enumerate(_tokens(old))}
    roles = {getattr(new.special, role): [getattr(old.special, role)] for role in NAMES}
    found: list[list[int]] = []
    for number, token in enumerate(_tokens(new)):
        if number in roles:
            found.append(roles[number])
        elif token in ids and new.is_byte_level == old.is_byte_level:
            found.append([ids[token]])
        else:
            found.append(_cut(token, new, old, ids))
    return found


def _cut(token: str, new: Tokenizer, old: Tokenizer, ids: Mapping[str, int]) -> list[int]:
    """The known pieces of a token's text; inside a word where the token is."""
    text = token.removeprefix("##").replace("▁", " ")
    inside = token.startswith("##") or ("▁" not in token and _is_unigram(new))
    if new.is_byte_level:
        text = new.decode([new.id_of(token)])
        inside = not text.startswith(" ")
    text = text.strip()
    before = (
        " " if old.is_byte_level and not inside else ""
    )  # there a word's first piece has its blank
    cut = [n for n in old.encode(before + text) if n not in old.special] if text else []
    if cut and inside and not old.is_byte_level:
        first = old.tokens(cut[:1])[0]
        continued = ids.get("##" + first, ids.get(first.removeprefix("▁")))
        cut[0] = cut[0] if continued is None else continued
    return cut


def _is_unigram(tokenizer: Tokenizer) -> bool:
    return any(token.startswith("▁") for token in tokenizer.tokens(range(min(tokenizer.size, 500))))


def _is(old: Tokenizer, ids: Sequence[int], token: str) -> bool:
    return len(ids) == 1 and old.tokens(ids)[0] == token


def _tokens(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.tokens(range(tokenizer.size))
