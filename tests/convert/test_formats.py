"""The formats models come in: the same tensors from each, and nothing run, read or believed beyond them."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

from electra_jax import cli
from electra_jax.convert import folder, hf
from electra_jax.convert.formats import (
    hdf5,
    msgpack_file,
    table,
    tensors,
    tf1,
    tf1_names,
    torch_pickle,
    variants,
)
from electra_jax.convert.formats.tensors import Stored, Tensors
from electra_jax.objective.export import DETECTION, MASKED_LM
from electra_jax.spec import UserError

DRAW = np.random.default_rng(0)
VALUES = {
    "electra.embeddings.word_embeddings.weight": DRAW.normal(size=(7, 4)).astype(np.float32),
    "electra.embeddings.LayerNorm.weight": np.ones(4, np.float32),
    "electra.embeddings.LayerNorm.bias": np.zeros(4, np.float32),
    "electra.encoder.layer.0.output.dense.weight": DRAW.normal(size=(4, 6)).astype(np.float32),
    "electra.encoder.layer.0.output.dense.bias": DRAW.normal(size=4).astype(np.float32),
}


class Storage:
    """What PyTorch's pickles name as torch.FloatStorage."""


class Pickled:
    """A tensor as PyTorch pickles it: a call of torch._utils._rebuild_tensor_v2 on a storage of the file."""

    def __init__(self, key: str, value: np.ndarray, **changed: Any) -> None:
        self.key, self.value, self.changed = key, value, changed


class Pickler(pickle._Pickler):
    """Writes the instructions of PyTorch's pickles without PyTorch."""

    def save(self, given: Any, *rest: Any, **named: Any) -> None:
        if not isinstance(given, Pickled):
            super().save(given, *rest, **named)
            return
        value, step, strides = given.value, 1, []
        for n in reversed(value.shape):
            strides.insert(0, step)
            step *= n
        parts = {"offset": 0, "size": value.shape, "stride": tuple(strides), "count": value.size}
        parts |= given.changed
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
        self.write(b"(")
        super().save("storage")
        self.write(b"ctorch\nFloatStorage\n")
        for part in (given.key, "cpu", parts["count"]):
            super().save(part)
        self.write(b"tQ")
        for part in (parts["offset"], parts["size"], parts["stride"], False):
            super().save(part)
        self.write(b"ccollections\nOrderedDict\n)Rt")
        self.write(b"R")


def pickled(content: Any) -> bytes:
    out = io.BytesIO()
    Pickler(out, 2).dump(content)
    return out.getvalue()


def write_zip(path: Path, values: Mapping[str, np.ndarray], **changed: Any) -> None:
    """A file as torch.save writes it since 1.6."""
    content = {
        name: Pickled(str(i), value, **changed) for i, (name, value) in enumerate(values.items())
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled(content))
        for i, value in enumerate(values.values()):
            archive.writestr(f"archive/data/{i}", value.tobytes())
        archive.writestr("archive/version", "3\n")


def write_older(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """A file as torch.save wrote it before."""
    content = {name: Pickled(str(i), value) for i, (name, value) in enumerate(values.items())}
    content_bytes = pickled(content).replace(b"tQ", b"NtQ")  # the older tuple ends with a view
    with open(path, "wb") as out:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            out.write(pickle.dumps(part, 2))
        out.write(content_bytes)
        out.write(pickle.dumps([str(i) for i in range(len(values))], 2))
        for value in values.values():
            out.write(struct.pack("<q", value.size) + value.tobytes())


def write_msgpack(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """A file as transformers' Flax classes wrote it."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *module, leaf = name.split(".")
        if leaf == "weight":
            is_norm, is_table = "LayerNorm" in name, "embeddings" in module[-1]
            leaf = "scale" if is_norm else "embedding" if is_table else "kernel"
        node = tree
        for part in module:
            node = node.setdefault(part, {})
        node[leaf] = value.T if leaf == "kernel" else value
    path.write_bytes(serialization.msgpack_serialize(tree))


def write_h5(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """A file as transformers' Keras classes wrote it."""
    with h5py.File(path, "w") as out:
        for name, value in values.items():
            *module, leaf = name.replace("layer.", "layer~").split(".")
            module = [part.replace("layer~", "layer_._") for part in module]
            if "LayerNorm" in name:
                leaf = {"weight": "gamma", "bias": "beta"}[leaf]
            elif leaf == "weight" and "word_embeddings" not in name:
                leaf = "kernel"
            value = value.T if leaf == "kernel" else value
            out["/".join(["electra", "tf_electra_for_masked_lm", *module, f"{leaf}:0"])] = value


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block of the table format, no key shared, with type and checksum."""
    content = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    )
    content += struct.pack("<II", 0, 1) + b"\0"
    return content + struct.pack("<I", masked(content))


def write_tf1(home: Path, values: Mapping[str, np.ndarray], step: int = 3) -> None:
    """A checkpoint as TensorFlow writes it."""
    data, pairs = b"", [(b"", b"\x08\x01")]
    for name in sorted(values):
        value = np.asarray(values[name])
        raw = value.tobytes()
        shape = b"".join(
            b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in value.shape)
        )
        kind = {"float32": 1, "int64": 9}[value.dtype.name]
        entry = b"\x08" + varint(kind) + b"\x12" + varint(len(shape)) + shape
        entry += b"\x20" + varint(len(data)) + b"\x28" + varint(len(raw))
        entry += b"\x35" + struct.pack("<I", masked(raw))
        pairs.append((name.encode(), entry))
        data += raw
    first = block(pairs)
    handle = varint(0) + varint(len(first) - 5)
    second = block([(b"\xff", handle)])
    empty = block([])
    meta = varint(len(first)) + varint(len(empty) - 5)
    index = varint(len(first) + len(empty)) + varint(len(second) - 5)
    footer = (meta + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (home / f"model.ckpt-{step}.index").write_bytes(first + empty + second + footer)
    (home / f"model.ckpt-{step}.data-00000-of-00001").write_bytes(data)


WRITERS: dict[str, tuple[Any, Callable[[Path, Mapping[str, np.ndarray]], None]]] = {
    "zip": (torch_pickle, lambda home, v: write_zip(home / "pytorch_model.bin", v)),
    "older": (torch_pickle, lambda home, v: write_older(home / "pytorch_model.bin", v)),
    "msgpack": (msgpack_file, lambda home, v: write_msgpack(home / "flax_model.msgpack", v)),
    "h5": (hdf5, lambda home, v: write_h5(home / "tf_model.h5", v)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_tensors(name: str, tmp_path: Path):
    """Catches kernels that are not turned, names that are another writer's, and numbers from another place."""
    module, write = WRITERS[name]
    write(tmp_path, VALUES)
    found = module.read(module.find(tmp_path))
    assert found.shapes() == {name: value.shape for name, value in VALUES.items()}
    for path, value in VALUES.items():
        assert np.array_equal(found[path], value), path


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(zipped: bool, tmp_path: Path):
    """Catches a reader of our own idea of the format: views, transposed tensors, shared storages, half precision."""
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    values = {
        "whole": base,
        "turned": base.T,
        "part": base[1:3, 2:5],
        "half": base.half(),
        "brain": base.bfloat16(),
        "numbers": torch.arange(3),
        "one": torch.tensor(2.5),
    }
    path = tmp_path / "pytorch_model.bin"
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    found = torch_pickle.read([path])
    assert list(found) == list(values)
    for name, value in values.items():
        expected = value.numpy() if name == "numbers" else value.float().numpy()
        assert np.array_equal(found[name], expected), name
        assert found.shapes()[name] == tuple(value.shape)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_something(zipped: bool, protocol: int, tmp_path: Path):
    """Catches a file that is opened by running what it says."""
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    content = pickle.dumps({"weight": Hostile(made)}, protocol)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no table of tensors needs|GLOBAL|is refused"):
        torch_pickle.read([path])
    assert not made.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offset": 1}, "reaches beyond"),
        ({"size": (7, 400)}, "reaches beyond"),
        ({"stride": (4000, 1)}, "reaches beyond"),
        ({"count": 10**12}, "reaches beyond"),
        ({"size": (2**50, 2**50), "stride": (0, 0)}, "claims more than"),
        ({"stride": (-1, 1)}, "negative"),
        ({"offset": "x"}, "negative size"),
    ],
)
def test_tensors_stay_in_their_storage(changed: dict[str, Any], message: str, tmp_path: Path):
    """Catches sizes, strides and offsets that lead outside: other tensors' numbers, or memory that is not ours."""
    path = tmp_path / "pytorch_model.bin"
    write_zip(path, {"w": np.zeros((7, 4), np.float32)}, **changed)
    with pytest.raises(UserError, match=message):
        torch_pickle.read([path])


def damaged(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "short":
        content = content[: len(content) * 2 // 3]
    elif kind == "flipped":
        content[len(content) // 2] ^= 0x10
    elif kind == "text":
        content = bytearray(b"version https://git-lfs.github.com/spec/v1\n")
    else:
        content = bytearray()
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["short", "text", "empty"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_one_line(name: str, kind: str, tmp_path: Path):
    """Catches a traceback of msgpack, h5py, zipfile or pickle, and half a model that is taken for a whole one."""
    module, write = WRITERS[name]
    write(tmp_path, VALUES)
    (path,) = module.find(tmp_path)
    damaged(path, kind)
    with pytest.raises(UserError, match=path.name):
        dict(module.read([path]))


def test_hdf5_does_not_follow_links(tmp_path: Path):
    """Catches numbers that are read from another file of this machine, by link or by storage."""
    with h5py.File(tmp_path / "secret.h5", "w") as out:
        out["w"] = np.ones(3)
    for make in (
        lambda out: out.__setitem__("w", h5py.ExternalLink("secret.h5", "w")),
        lambda out: out.__setitem__("w", h5py.SoftLink("/electra")),
        lambda out: out.create_dataset(
            "w", (3,), "f4", external=[(str(tmp_path / "secret.h5"), 0, 12)]
        ),
    ):
        path = tmp_path / "tf_model.h5"
        path.unlink(missing_ok=True)
        write_h5(path, VALUES)
        with h5py.File(path, "a") as out:
            make(out)
        with pytest.raises(UserError, match="refused"):
            hdf5.read([path])


def variables(own_generator: bool = True) -> dict[str, np.ndarray]:
    """The original's variables of a tiny pair, with Adam's slots."""
    draw = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {
        "electra/embeddings/word_embeddings": (40, 8),
        "electra/embeddings/position_embeddings": (16, 8),
        "electra/embeddings/token_type_embeddings": (2, 8),
        "discriminator_predictions/dense/kernel": (64, 64),
        "discriminator_predictions/dense/bias": (64,),
        "discriminator_predictions/dense_1/kernel": (64, 1),
        "discriminator_predictions/dense_1/bias": (1,),
        "generator_predictions/dense/bias": (8,),
        "generator_predictions/output_bias": (40,),
        "generator_predictions/LayerNorm/gamma": (8,),
        "generator_predictions/LayerNorm/beta": (8,),
        "electra/embeddings/LayerNorm/gamma": (8,),
        "electra/embeddings/LayerNorm/beta": (8,),
    }
    networks = {"electra": 64} | ({"generator": 16} if own_generator else {})
    shapes["generator_predictions/dense/kernel"] = (networks.get("generator", 64), 8)
    for name, width in networks.items():
        at = f"{name}/encoder/layer_0"
        shapes[f"{name}/embeddings_project/kernel"] = (8, width)
        shapes[f"{name}/embeddings_project/bias"] = (width,)
        for part in ("self/query", "self/key", "self/value", "output/dense"):
            shapes[f"{at}/attention/{part}/kernel"] = (width, width)
            shapes[f"{at}/attention/{part}/bias"] = (width,)
        for part in ("attention/output", "output"):
            shapes[f"{at}/{part}/LayerNorm/gamma"] = (width,)
            shapes[f"{at}/{part}/LayerNorm/beta"] = (width,)
        shapes[f"{at}/intermediate/dense/kernel"] = (width, 4 * width)
        shapes[f"{at}/intermediate/dense/bias"] = (4 * width,)
        shapes[f"{at}/output/dense/kernel"] = (4 * width, width)
        shapes[f"{at}/output/dense/bias"] = (width,)
    out = {}
    for name, shape in shapes.items():
        for slot in ("", "/adam_m", "/adam_v"):
            out[name + slot] = np.abs(draw.normal(size=shape)).astype(np.float32)
    return out | {"global_step": np.array(3)}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A folder with a checkpoint of the original and its vocabulary."""
    home = tmp_path / "original"
    home.mkdir()
    write_tf1(home, variables())
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35))]
    (home / "vocab.txt").write_text("\n".join(words) + "\n")
    return home


def test_an_original_checkpoint_comes_in_whole(original: Path, tmp_path: Path, capsys):
    """Catches a lost network, slots of another variable or turned the wrong way, and a step that starts at 0."""
    assert cli.main(["import", f"--discriminator={original}", f"--workdir={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().err
    assert "TensorFlow 1" in said and "step 3" in said and "NEW, UNTRAINED" not in said
    from electra_jax.workdir import imported

    found, values = imported.read(tmp_path / "run"), variables()
    assert found is not None and found.moments is not None and found.step == 3
    assert set(found.moments["mu"]) == set(found.moments["nu"]) == set(found.params)
    for ours, theirs in (
        ("discriminator/layer_0/up/kernel", "electra/encoder/layer_0/intermediate/dense/kernel"),
        ("generator/layer_0/query/kernel", "generator/encoder/layer_0/attention/self/query/kernel"),
        ("discriminator_head/out/kernel", "discriminator_predictions/dense_1/kernel"),
        ("generator_head/norm/scale", "generator_predictions/LayerNorm/gamma"),
    ):
        assert np.array_equal(found.params[ours], values[theirs]), ours
        assert np.array_equal(found.moments["mu"][ours], values[theirs + "/adam_m"]), ours
        assert np.array_equal(found.moments["nu"][ours], values[theirs + "/adam_v"]), ours


def test_an_original_run_goes_on(original: Path, tmp_path: Path, capsys):
    """Catches a schedule that starts again, and moments that are not the optimizer's when training goes on."""
    from electra_jax.data.prepare import build

    text = tmp_path / "text.txt"
    draw = np.random.default_rng(0)
    documents = [" ".join(f"w{i}" for i in draw.integers(0, 35, 60)) for _ in range(60)]
    text.write_text("\n\n".join(documents) + "\n")
    build.prepare([str(text)], original, 16, tmp_path / "data", valid_fraction=0.2, workers=1)
    run = tmp_path / "run"
    assert cli.main(["import", f"--discriminator={original}", f"--workdir={run}"]) == 0
    model = json.loads((run / "import.json").read_text())["model"]
    given = [
        f"--config.model.{name}={value}" for name, value in model.items() if name != "vocab_rows"
    ]
    given += ["--config.train.steps=5", "--config.train.batch=8", "--config.optim.warmup=2"]
    given += ["--config.train.log_every=1", "--config.mesh.data=8", "--config.train.eval_batches=1"]
    assert (
        cli.main(
            [
                "pretrain",
                "--config=tiny",
                f"--workdir={run}",
                f"--config.data.path={tmp_path / 'data'}",
                *given,
            ]
        )
        == 0
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 5]
    assert sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit()) == [5]
    rate = next(line["learning_rate"] for line in lines if line["split"] == "train")
    peak = json.loads((run / "config.json").read_text())["config"]["optim"]["peak_lr"]
    assert rate == pytest.approx(peak * (1 - 3 / 5), rel=1e-5)


@pytest.mark.parametrize("damage", ["index", "data", "gone", "two"])
def test_a_damaged_checkpoint_is_refused(damage: str, original: Path, tmp_path: Path):
    """Catches numbers that are believed without their checksum, and a checkpoint of which half is there."""
    index, data = original / "model.ckpt-3.index", original / "model.ckpt-3.data-00000-of-00001"
    if damage == "gone":
        data.unlink()
    elif damage == "two":
        data.rename(original / "model.ckpt-3.data-00000-of-00002")
        (original / "model.ckpt-3.data-00001-of-00002").write_bytes(b"")
    else:
        path = index if damage == "index" else data
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError):
        hf.import_(original, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_newest_checkpoint_is_taken(original: Path):
    """Catches an older checkpoint of the folder, and one that the file `checkpoint` does not name."""
    write_tf1(original, variables(), step=20)
    assert tf1.find(original)[0].name == "model.ckpt-20.index"
    (original / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-3"\n')
    assert tf1.find(original)[0].name == "model.ckpt-3.index"
    (original / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-4"\n')
    with pytest.raises(UserError, match=r"model\.ckpt-4"):
        tf1.find(original)


def test_networks_that_share_all_and_others(tmp_path: Path):
    """Catches the encoder of another network, and an architecture that is not computed here."""
    shared = Tensors(_stored(variables(own_generator=False)))
    networks = tf1_names.networks(shared, "x")
    name = "electra.encoder.layer.0.intermediate.dense.weight"
    assert np.array_equal(networks["generator"][name], networks["discriminator"][name])
    alone = {n: v for n, v in variables().items() if not n.startswith("generator_predictions")}
    assert set(tf1_names.networks(Tensors(_stored(alone)), "x")) == {"discriminator"}
    with pytest.raises(UserError, match="Electric"):
        tf1_names.networks(Tensors(_stored({"generator_ltr/x": np.zeros(1)} | alone)), "x")


def _stored(values: Mapping[str, np.ndarray]) -> dict[str, Stored]:
    return {
        name: Stored(shape=v.shape, dtype=v.dtype, read=lambda v=v: v) for name, v in values.items()
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("embeddings.word_embeddings.weight", "electra.embeddings.word_embeddings.weight"),
        (
            "module.electra.embeddings.word_embeddings.weight",
            "electra.embeddings.word_embeddings.weight",
        ),
        ("electra.embeddings.LayerNorm.gamma", "electra.embeddings.LayerNorm.weight"),
        ("electra.embeddings.LayerNorm.beta", "electra.embeddings.LayerNorm.bias"),
        ("electra.pooler.dense.weight", None),
    ],
)
def test_other_spellings(given: str, expected: str | None, capsys):
    """Catches the names of files in the wild: no prefix, another one, gamma and beta, poolers."""
    found = variants.usual(Tensors(_stored({given: np.zeros(1)})), "x")
    assert list(found) == ([expected] if expected else [])
    assert ("left out" in capsys.readouterr().err) == (expected is None)


def test_spellings_that_meet_and_strangers():
    """Catches two tensors of which one is lost, and another architecture under an ELECTRA's name."""
    both = {"electra.embeddings.LayerNorm.gamma": np.zeros(1)}
    both["electra.embeddings.LayerNorm.weight"] = np.ones(1)
    with pytest.raises(UserError, match="twice"):
        variants.usual(Tensors(_stored(both)), "x")
    with pytest.raises(UserError, match="DeBERTa"):
        variants.usual(Tensors(_stored({"deberta.encoder.x": np.zeros(1)})), "x")


def test_two_formats_in_one_folder(tmp_path: Path, capsys):
    """Catches a choice between two models that nobody is told of."""
    write_zip(tmp_path / "pytorch_model.bin", VALUES)
    save_file(VALUES, tmp_path / "model.safetensors")
    form, files = table.find(tmp_path)
    assert form is table.SAFETENSORS and [f.name for f in files] == ["model.safetensors"]
    assert "not pytorch_model.bin" in capsys.readouterr().err


def test_sizes_beyond_belief(tmp_path: Path):
    """Catches memory that is taken because a header claims it."""
    with pytest.raises(UserError, match="claims more"):
        tensors.check_shape("x", "w", (2**40, 2))
    with pytest.raises(UserError, match="claims the shape"):
        tensors.check_shape("x", "w", (1,) * 9)
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(b"\x81\xa1w\xc9\xff\xff\xff\xf0\x01")  # an extension of 4 GiB
    with pytest.raises(UserError, match="no whole|not a whole"):
        msgpack_file.read([path])


@pytest.mark.parametrize("kind", ["bin", "bin_legacy", "h5", "msgpack"])
@pytest.mark.parametrize("role", ["discriminator", "generator"])
def test_files_the_original_software_made(shared: Path, kind: str, role: str):
    """Catches a reader of our own writers' files alone."""
    place = shared / "checkpoints"
    control = dict(folder.read(place / "safetensors" / role, say=False).tensors)
    found = folder.read(place / kind / role, say=False).tensors
    for name, value in control.items():
        if "position_ids" not in name:
            assert np.array_equal(found[name], value), name


def test_the_original_s_own_checkpoint(shared: Path):
    """Catches variables that the original's names hide: a network that differs from its conversion by transformers."""
    place = shared / "checkpoints"
    for role, architecture in (
        ("discriminator", DETECTION),
        ("generator", MASKED_LM),
    ):
        control = folder.read(place / "safetensors" / role, say=False)
        found = folder.read(place / "tf1", architecture, say=False)
        assert found.shape == control.shape
        for name, value in found.tensors.items():
            assert np.array_equal(control.tensors[name], value), name
    with pytest.raises(UserError, match="give it to finetune --init"):
        folder.read(place / "tf1_finetuned", DETECTION, say=False)
    assert len(folder.read(place / "tf1_finetuned", say=False).tensors) == 39


def test_logits_are_those_of_the_original_s_own_graph(shared: Path):
    """Catches a network that has the original's numbers and computes something else with them."""
    from electra_jax.convert import pair
    from electra_jax.learn import arrays
    from electra_jax.model.electra import Electra
    from electra_jax.model.tokens import Tokens

    place = shared / "checkpoints"
    given, expected = np.load(place / "input.npz"), np.load(place / "expected_logits_original.npz")
    both = [
        folder.read(place / "tf1", architecture, say=False)
        for architecture in (DETECTION, MASKED_LM)
    ]
    dims, params = pair.join(*both)
    ids, types, seen = (
        given[name].astype(np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    found = Electra(dims).apply(
        {"params": arrays.nest(params)},
        Tokens.of({"ids": ids, "types": types, "docs": seen}),
        method=Electra.discriminate,
    )
    logits = expected["discriminator"]
    error = np.abs(np.asarray(found) - logits)[seen > 0].max()
    assert error <= 1e-5 * max(1.0, np.abs(logits).max())
