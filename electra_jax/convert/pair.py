"""Two model folders become one set of parameters: how they are tied, what they share, what is fresh."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from electra_jax.convert import names
from electra_jax.convert.folder import DIMENSIONS, Model
from electra_jax.convert.names import Entry, Shape
from electra_jax.learn import arrays
from electra_jax.model.backbone import EncoderSpec
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective import registry
from electra_jax.objective.export import DETECTION, MASKED_LM
from electra_jax.spec import UserError, check_choice

Flat = dict[str, np.ndarray]
# The paper's generator widths (Table 6): a third for the base model's 768, a quarter otherwise.
THIRD_WIDTH = 768


def shape_of(dims: Dimensions, encoder: EncoderSpec) -> Shape:
    """The numbers of one of the two exported models."""
    layer, spec = encoder.stack[0], dims.spec
    return Shape(
        vocab=dims.rows,
        embedding=encoder.embedding,
        width=layer.width,
        heads=layer.heads,
        ffn=layer.ffn,
        layers=encoder.layers,
        positions=spec.positions,
        types=spec.types,
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

    They come from the model's own initialiser with seed 0; the embeddings stay the discriminator's.
    """
    full = model.shape
    width = round(full.width / (3 if full.width == THIRD_WIDTH else 4))
    small = replace(full, width=width, heads=max(1, width // 64), ffn=4 * width)
    dims = _dimensions(model, small, "embeddings")
    padded = dims.padded_rows
    params = names.import_(model.tensors, discriminator_table(dims), padded, str(model.path))
    return dims, params | fresh_generator(dims)


def fresh_generator(dims: Dimensions) -> Flat:
    """A new generator's own parameters, those it does not share, initialised with seed 0."""
    import jax

    from electra_jax.model import initial
    from electra_jax.model.electra import Electra

    def init(key: jax.Array) -> Mapping[str, jax.Array]:
        params = initial.fresh(Electra(dims), key)
        return {name: value for name, value in params.items() if name.startswith("generator")}

    made = jax.jit(init, compiler_options=initial.UNTUNED)(jax.random.key(0))
    return {name: np.asarray(x) for name, x in arrays.flatten(made).items()}


def join(first: Model, second: Model, embeddings: str | None = None) -> tuple[Dimensions, Flat]:
    """Discriminator and generator as one tree.

    What both hold (the embeddings; in tying mode "all" the encoder too) must be equal. Where only the
    embeddings differ, `embeddings` says which to keep: "discriminator", or "average" of the two;
    without it UserError gives the largest difference.
    """
    tying = tying_of(first, second)
    dims = _dimensions(first, second.shape, tying)
    padded = dims.padded_rows
    params = names.import_(first.tensors, discriminator_table(dims), padded, str(first.path))
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
            + ("" if strangers else " Choose with --embeddings discriminator|average.")
        )
    for name in apart if embeddings == "average" else ():
        params[name] = (params[name] + others[name]) / np.float32(2)
    return dims, others | params


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
    encoder = [
        name
        for name in first.tensors
        if name.startswith(("electra.encoder.", "electra.embeddings_p"))
    ]
    same = first.shape == second.shape and all(
        name in second.tensors and np.array_equal(first.tensors[name], second.tensors[name])
        for name in encoder
    )
    return "all" if same else "embeddings"


def with_tokens(dims: Dimensions, tokens: int) -> Dimensions:
    """The same model for a tokenizer of `tokens`: further rows of its word table are kept and never drawn."""
    spec = replace(dims.spec, vocab_rows=dims.rows if dims.rows > tokens else 0)
    return Dimensions(spec, tokens)


MODES = ("embeddings", "none", "all")


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
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        init_std=options.init_std,
        dtype="float32",
        residual_dtype="float32",
        remat="none",
    )
    dims = Dimensions(spec, full.vocab)
    derived = shape_of(dims, dims.generator)
    problems = [
        f"{DIMENSIONS[field][0]} is {getattr(small, field)}, expected {getattr(derived, field)}"
        for field in DIMENSIONS
        if getattr(small, field) != getattr(derived, field)
    ]
    if problems:
        raise UserError(
            f"the generator does not go with the discriminator in {model.path} (tying {tying!r}; "
            "heads are width // 64 and intermediate_size 4 x hidden_size):\n  "
            + "\n  ".join(problems)
        )
    return dims
