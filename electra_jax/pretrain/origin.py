"""The masked LM of another workdir that a run's parameters begin with, where its objective asks for one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data.source import Prepared
from electra_jax.learn import arrays, checkpoint
from electra_jax.learn import program as programs
from electra_jax.model.backbone import EncoderSpec
from electra_jax.model.electra import Dimensions
from electra_jax.objective import registry
from electra_jax.objective.export import MASKED_LM, Export, deltas, whole
from electra_jax.objective.protocol import origin_of
from electra_jax.pretrain.options import complete, run_spec
from electra_jax.spec import UserError
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import imported
from electra_jax.workdir.record import RECORD, read_record


class Trained(NamedTuple):
    """What a workdir says of its models, without their parameters."""

    dims: Dimensions
    exports: tuple[Export, ...]
    of_run: bool  # not an import that was never trained


def check(objective: Any, data: Prepared, dims: Dimensions) -> None:
    """Raises UserError where an objective begins with a model that is not there, or is another than the config says.

    Reads no parameters.
    """
    origin = origin_of(objective)
    if origin is None:
        return
    what = f"{origin.option}={origin.folder}"
    found = _described(origin.folder, what)
    model = _masked_lm(found, what)
    if tokenizers.load(Path(origin.folder) / "tokenizer").hash != data.tokenizer_hash:
        raise UserError(
            f"{what}: that model has another vocabulary than {data.path}; prepare the data with --tokenizer "
            f"{Path(origin.folder) / 'tokenizer'}, or name a model of the data's tokenizer"
        )
    for place in origin.takes:
        wrong = _differences(_numbers(dims, place.spec), _numbers(found.dims, model.spec))
        if wrong:
            raise UserError(
                f"{what}: its masked LM is not the one that this config describes (model.generator_size, "
                f"model.generator_layers, model.tying): {'; '.join(wrong)}"
            )


def begin(objective: Any, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that come from elsewhere, on their devices, by the first name of their paths; most have none.

    `abstract`: shapes and placement of all parameters.
    """
    origin = origin_of(objective)
    if origin is None:
        return {}
    what = f"{origin.option}={origin.folder}"
    found = _described(origin.folder, what)
    model, folder = _masked_lm(found, what), Path(origin.folder)
    source = _params(folder, found)
    taken: dict[str, np.ndarray] = {}
    for place in origin.takes:
        for mine, theirs in (
            (place.embeddings, model.embeddings),
            (place.encoder, model.encoder),
            (place.head, model.head),
        ):
            if mine:
                taken |= {
                    mine + path.removeprefix(theirs): x
                    for path, x in source.items()
                    if path.startswith(f"{theirs}/")
                }
    tree = arrays.nest(deltas(taken, origin.takes))
    expected = {name: abstract[name] for name in tree}
    wrong = arrays.mismatches(
        arrays.describe(expected), arrays.describe(arrays.flatten(tree)), what
    )
    if wrong:
        raise UserError(f"{what}: its parameters do not fit the model: {'; '.join(wrong[:3])}")
    return dict(programs.place(tree, programs.shardings(expected)))


def _described(path: str, what: str) -> Trained:
    folder = Path(path)
    if (folder / RECORD).is_file() and checkpoint.Checkpoints(folder).steps():
        record = read_record(folder)
        run = run_spec(complete(record["config"]), folder)
        data = record["data"]
        objective = registry.make(
            run.objective,
            run.model,
            data["vocab_size"],
            tokenizers.load(folder / "tokenizer").special,
            data["seq_len"],
        )
        return Trained(run.dimensions(data["vocab_size"]), tuple(objective.exports()), True)
    found = imported.read_record(folder)
    if found is None:
        raise UserError(
            f"{what} is no workdir with a checkpoint or an import; an exported folder is brought in by electra-jax "
            "import --generator FOLDER --workdir NEW"
        )
    dims, record = found
    return Trained(dims, registry.exports(record["objective"], dims), False)


def _masked_lm(found: Trained, what: str) -> Export:
    for export in found.exports:
        if export.hf_class == MASKED_LM and export.trained:
            return export
    raise UserError(f"{what} holds no masked LM; name the workdir of a run that trained one")


def _params(folder: Path, found: Trained) -> dict[str, np.ndarray]:
    """By path, as they leave."""
    if found.of_run:
        return whole(checkpoint.read(folder).params, found.exports)
    model = imported.read(folder)
    assert model is not None
    return whole(model.params, found.exports)


def _numbers(dims: Dimensions, spec: EncoderSpec) -> dict[str, Any]:
    """What makes two masked LMs of the same parameters the same function."""
    return {
        "family": dims.spec.family,
        "width": spec.width,
        "layers": spec.layers,
        "heads": spec.stack[0].heads,
        "feed-forward width": spec.stack[0].ffn,
        "width of embeddings": spec.embedding,
        "positions": dims.spec.positions,
        "types": dims.spec.types,
        "rows of the word table": dims.padded_rows,
        "windows": [layer.window for layer in spec.stack],
        "bases of rotary positions": [layer.rope_theta for layer in spec.stack],
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {ours[name]} here, {theirs[name]} there"
        for name in ours
        if ours[name] != theirs[name]
    ]
