"""Two model folders become one set of parameters: how they are tied, what they share, what is fresh."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from electra_jax.convert import names
from electra_jax.convert.config import SPELLINGS
from electra_jax.convert.entries import Entry, Options, Shape
from electra_jax.convert.folder import Model
from electra_jax.learn import arrays
from electra_jax.model import family as families
from electra_jax.model.backbone import EncoderSpec
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.model.options import MODERN
from electra_jax.objective import registry
from electra_jax.objective.export import DETECTION, MASKED_LM, deltas
from electra_jax.spec import UserError, check_choice

Flat = dict[str, np.ndarray]
# The paper's generator widths (Table 6): a third for the base model's 768, a quarter otherwise.
THIRD_WIDTH = 768
DEPTH = 4  # of so many layers a modern generator has one


def shape_of(dims: Dimensions, encoder: EncoderSpec) -> Shape:
    """The numbers of one of the two exported models."""
    layer, spec = encoder.stack[0], dims.spec
    own = {}
    if spec.family == MODERN:
        own = {name: families.value(spec, name) for name in families.MODERN_DEFAULTS}
    return Shape(
        vocab=dims.rows,
        embedding=encoder.embedding,
        width=layer.width,
        heads=layer.heads,
        ffn=layer.ffn,
        layers=encoder.layers,
        positions=spec.positions,
        types=spec.types,
        family=spec.family,
        **own,
    )


def options_of(spec: ModelSpec, notes: Mapping[str, object] | None = None) -> Options:
    """What the config.json of a model says besides its numbers."""
    return Options(
        dropout=spec.dropout,
        attention_dropout=spec.attention_dropout,
        init_std=spec.init_std,
        notes=notes,
        embedding_dropout=spec.embedding_dropout,
        mlp_dropout=spec.mlp_dropout,
    )


def tables(dims: Dimensions, hf_class: str) -> list[list[Entry]]:
    """The border tables of the objective whose first model is of this class, a table a model."""
    exports = registry.exports(registry.that_exports(hf_class, dims), dims)
    return [names.table(export, shape_of(dims, export.spec)) for export in exports]


def discriminator_table(dims: Dimensions) -> list[Entry]:
    """The border table of the discriminator."""
    return tables(dims, DETECTION)[0]


def generator_table(dims: Dimensions) -> list[Entry]:
    """The border table of the generator."""
    return tables(dims, DETECTION)[1]


def dimensions(model: Model) -> Dimensions:
    """The dimensions of a lone encoder, whatever head is on it."""
    return _dimensions(model, model.shape, "all")


def single(model: Model) -> tuple[Dimensions, Flat]:
    """A lone masked LM as the parameters of the objective that learns one."""
    dims = dimensions(model)
    (table,) = tables(dims, MASKED_LM)
    return dims, names.import_(model.tensors, table, dims.padded_rows, str(model.path))


def lone_discriminator(model: Model) -> tuple[Dimensions, Flat]:
    """A discriminator without its generator, which gets the paper's size and fresh parameters.

    In the modern family it gets the discriminator's width and a quarter of its depth. Fresh parameters come from the
    model's own initialiser with seed 0; the embeddings stay the discriminator's.
    """
    full = model.shape
    if full.family == MODERN:
        small = replace(full, layers=max(1, round(full.layers / DEPTH)))
    else:
        width = round(full.width / (3 if full.width == THIRD_WIDTH else 4))
        small = replace(full, width=width, heads=max(1, width // 64), ffn=4 * width)
    dims = _dimensions(model, small, "embeddings")
    params = discriminator(model, dims)
    return dims, params | fresh(dims, "generator")


def discriminator(model: Model, dims: Dimensions) -> Flat:
    """The parameters of a discriminator; of a ModernBERT that is none, the encoder under a fresh head."""
    what, padded = str(model.path), dims.padded_rows
    if model.shape.family == MODERN and model.role != DETECTION:
        tensors = names.encoder_tensors(model.tensors, MODERN, what)
        table = names.encoder_only(model.shape, "discriminator")
        return names.import_(tensors, table, padded, what) | fresh(dims, "discriminator_head")
    return names.import_(model.tensors, discriminator_table(dims), padded, what)


def fresh(dims: Dimensions, begins: str) -> Flat:
    """A new model's parameters whose paths begin so, initialised with seed 0: of a generator, those not shared."""
    import jax

    from electra_jax.model import initial
    from electra_jax.model.electra import Electra

    def init(key: jax.Array) -> Mapping[str, jax.Array]:
        params = initial.fresh(Electra(dims), key)
        return {name: value for name, value in params.items() if name.startswith(begins)}

    made = jax.jit(init, compiler_options=initial.UNTUNED)(jax.random.key(0))
    return {name: np.asarray(x) for name, x in arrays.flatten(made).items()}


def join(first: Model, second: Model, embeddings: str | None = None) -> tuple[Dimensions, Flat]:
    """Discriminator and generator as one tree.

    What both hold (the embeddings; in tying mode "all" the encoder too) must be equal. Where only the
    embeddings differ, `embeddings` says which to keep: "discriminator", or "average" of the two;
    without it UserError gives the largest difference. With "gdes" (DISENTANGLED) both are kept, of any pair on
    embeddings of one width: the generator's as the table, and what the discriminator's are more as its delta.
    """
    if first.shape.family != second.shape.family:
        raise UserError(
            f"{first.path} is of model.family={first.shape.family} and {second.path} of {second.shape.family}; a pair "
            "is of one"
        )
    tying = DISENTANGLED if embeddings == DISENTANGLED else tying_of(first, second)
    dims = _dimensions(first, second.shape, tying)
    padded = dims.padded_rows
    params = discriminator(first, dims)
    others = names.import_(second.tensors, generator_table(dims), padded, str(second.path))
    apart = {
        name: float(np.max(np.abs(params[name] - others[name])))
        for name in sorted(set(params) & set(others))
        if not np.array_equal(params[name], others[name])
    }
    strangers = [name for name in apart if not name.startswith("embeddings/")]
    if strangers or (apart and embeddings is None):
        worst = max(apart, key=lambda name: apart[name])
        raise UserError(
            f"{first.path} and {second.path} are not a pair: {len(apart)} tensors that they share "
            f"differ ({', '.join(apart)}), by at most {apart[worst]:.6g} in {worst}."
            + ("" if strangers else f" Choose with --embeddings {'|'.join(KEPT)}.")
        )
    for name in apart if embeddings == "average" else ():
        params[name] = (params[name] + others[name]) / np.float32(2)
    exports = registry.exports(registry.that_exports(DETECTION, dims), dims)
    return dims, deltas(others | params, exports)


def tying_of(first: Model, second: Model) -> str:
    """The tying mode of a pair: the generator's own note where it has one, else from its shapes.

    A generator on embeddings of another width has its own ("none"); one whose encoder equals the
    discriminator's shares everything ("all"); any other shares the embeddings.
    """
    noted = (second.options.notes or {}).get("tying")
    if noted is not None:
        check_choice(f"{second.path}/config.json electra_jax.tying", noted, MODES)
        return noted
    if first.shape.embedding != second.shape.embedding:
        if second.shape.embedding != second.shape.width:
            raise UserError(
                f"embedding_size is {second.shape.embedding} in {second.path} and "
                f"{first.shape.embedding} in {first.path}; a pair shares its embeddings, or the "
                f"generator's have its own hidden_size ({second.shape.width})"
            )
        return "none"
    border = names.BORDERS[first.shape.family]
    parts = tuple(border.prefix + part for part in border.parts if part != "embeddings.")
    encoder = [name for name in first.tensors if name.startswith(parts)]
    same = first.shape == second.shape and all(
        name in second.tensors and np.array_equal(first.tensors[name], second.tensors[name])
        for name in encoder
    )
    return "all" if same else "embeddings"


def with_tokens(dims: Dimensions, tokens: int) -> Dimensions:
    """The same model for a tokenizer of `tokens`: further rows of its word table are kept and never drawn."""
    spec = replace(dims.spec, vocab_rows=dims.rows if dims.rows > tokens else 0)
    return Dimensions(spec, tokens)


DISENTANGLED = "gdes"
MODES = ("embeddings", "none", "all", DISENTANGLED)
KEPT = ("discriminator", "average", DISENTANGLED)  # of embeddings that differ


def _dimensions(model: Model, small: Shape, tying: str) -> Dimensions:
    full, options = model.shape, model.options
    spec = ModelSpec(
        layers=full.layers,
        width=full.width,
        heads=full.heads,
        ffn=full.ffn,
        embedding=full.embedding,
        positions=full.positions,
        types=full.types,
        generator_size=small.width / full.width,
        generator_layers=small.layers / full.layers,
        tying=tying,
        dropout=0.0 if full.family == MODERN else options.dropout,
        attention_dropout=options.attention_dropout,
        embedding_dropout=options.embedding_dropout,
        mlp_dropout=options.mlp_dropout,
        init_std=options.init_std,
        family=full.family,
        **{name: getattr(full, name) for name in families.MODERN_DEFAULTS},
        dtype="float32",
        residual_dtype="float32",
        remat="none",
    )
    dims = Dimensions(spec, full.vocab)
    derived = shape_of(dims, dims.generator)
    named = {name: name for name in families.MODERN_DEFAULTS}
    named |= {field: key for field, (key, _) in SPELLINGS[full.family].DIMENSIONS.items()}
    problems = [
        f"{key} is {getattr(small, field)}, expected {getattr(derived, field)}"
        for field, key in named.items()
        if getattr(small, field) != getattr(derived, field)
    ]
    if problems:
        raise UserError(
            f"the generator does not go with the discriminator in {model.path} (tying {tying!r}; "
            "heads are width // 64 and intermediate_size 4 x hidden_size):\n  "
            + "\n  ".join(problems)
        )
    return dims
