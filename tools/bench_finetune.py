#!/usr/bin/env python3
"""Measures fine-tuning and prediction beside PyTorch and transformers, in alternating rounds.

    python tools/bench_finetune.py --data ../shared/data --vocab ../shared/data/vocab/bert-base-uncased-vocab.txt

Every contender is a process of its own, which sets up and compiles, and then waits; rounds go around, one process at
work at a time, so that what else the machine does meets all of them. Same examples, same model (ELECTRA-small's
dimensions unless --model says otherwise), dropout 0.1, batch, Adam (PyTorch's fused), clipping, threads. PyTorch's
attention is eager or sdpa, or it is compiled, and its batches are made in three ways: `same`, ours, in buckets;
`grouped`, transformers' group_by_length, sorted within stretches of 50 batches and padded to the longest example;
`shuffled`, padded to the longest example. torch.compile gets ours alone: each other length would be a compilation.
Prints examples/s and our ratio to the fastest.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.finetune import order, rows
from electra_jax.finetune.kinds import table as kinds
from electra_jax.learn import program as programs
from electra_jax.tasks.known import catalog
from electra_jax.text import tokenizer

SIZES = {  # layers, width, heads, ffn, embedding
    "mini": (4, 128, 2, 512, 128),
    "small": (12, 256, 4, 1024, 128),
    "base": (12, 768, 12, 3072, 768),
}
BUCKETS = 12  # as in configs/finetune.py
VARIANTS = ("ours", "eager", "sdpa", "compiled")
WORKLOADS = {  # task, file under --data, longest row, batch
    "sst2-train": ("sst2", "glue/SST-2/train.tsv", 128, 32),
    "sst2-predict": ("sst2", "glue/SST-2/dev.tsv", 128, 64),
    "squad-train": ("squad1", "squad/train-v1.1-subset.json.gz", 384, 32),
}
KINDS = ("same", "grouped", "shuffled")  # of batches
STRETCH = 50  # batches that transformers' LengthGroupedSampler sorts together
Batches = list[dict[str, np.ndarray]]


def main() -> None:
    """Runs the rounds of every workload and prints a table and JSON."""
    options = parse()
    found = {}
    for name in options.workloads.split(","):
        batches = make_batches(name, options)
        for kind, part in batches.items():
            filled = sum(b["docs"].sum() for b in part) / sum(b["docs"].size for b in part)
            lengths = sorted({b["ids"].shape[1] for b in part})
            print(
                f"{name}, {kind}: {len(part)} batches a round, {filled:.0%} tokens, {lengths} long"
            )
        workers = set_up(name, batches, options)
        speeds = measure(workers, options.rounds)
        found[name] = {who: statistics.median(values) for who, values in speeds.items()}
        show(speeds)
        for process, _ in workers.values():
            process.terminate()
            process.join()
    print(json.dumps(found, indent=2))


def show(speeds: dict[str, list[float]]) -> None:
    """Prints the contenders of a workload, median and range, and how they compare to ours."""
    medians = {who: statistics.median(values) for who, values in speeds.items()}
    ours = medians.get("ours", float("nan"))
    for who, speed in medians.items():
        spread = f"{min(speeds[who]):.1f} to {max(speeds[who]):.1f}"
        print(f"  {who:16} {speed:8.1f} examples/s ({spread})  ours is {ours / speed:.2f}x")
    theirs = {who: speed for who, speed in medians.items() if who != "ours"}
    if theirs:
        best = max(theirs, key=lambda who: theirs[who])
        rounds = [a / b for a, b in zip(speeds["ours"], speeds[best], strict=True)]
        print(
            f"  ours / the fastest ({best}): {statistics.median(rounds):.2f}, "
            f"by round {min(rounds):.2f} to {max(rounds):.2f}"
        )


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with glue/ and squad/")
    parser.add_argument("--vocab", required=True, help="a vocabulary of transformers' kind")
    parser.add_argument(
        "--workloads", default=",".join(WORKLOADS), help=f"of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"of {', '.join(VARIANTS)}")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help=f"PyTorch's batches, of {', '.join(KINDS)}"
    )
    parser.add_argument("--model", default="small", choices=SIZES)
    parser.add_argument("--batches", type=int, default=16, help="of a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--buckets", type=int, default=BUCKETS, help="lengths of our batches, at most"
    )
    return parser.parse_args()


def make_batches(name: str, options: argparse.Namespace) -> dict[str, Batches]:
    """The batches of one round by kind: every batch of a prediction, of an epoch of training equally
    many from everywhere between its shortest and its longest."""
    task_name, path, longest, size = WORKLOADS[name]
    task, words = catalog.get(task_name), tokenizer.load(options.vocab)
    examples = task.read(Path(options.data) / path, "train")
    chosen = order.subset(len(examples), 4 * STRETCH * size, 0)
    share = len(chosen) / len(examples)
    examples = [examples[i] for i in chosen]
    labels = task.labels or ()
    made = kinds.features(task, examples, words, longest, labels, training=True)
    labels_of = kinds.get(task.kind).labels(task, made)
    data = rows.of_features(made, labels_of, words.special.pad)
    predicts = name.endswith("predict")
    price = share / task.epochs * (order.PREDICTION_PRICE if predicts else order.STEP_PRICE)
    buckets = order.bucket_lengths(data.lengths, options.buckets, longest, price)
    if predicts:
        inputs = order.fixed(data.lengths, buckets, size)
        numbers = np.arange(len(data))
        by_length = np.argsort(data.lengths, kind="stable")[::-1]
        return {
            "same": [data.batch(n, length) for length, n in inputs],
            "grouped": padded(data, by_length, size),
            "shuffled": padded(data, numbers, size),
        }
    sequence = order.Order(data.lengths, buckets, size, 0)
    ours = [
        data.batch(sequence.rows(s, 0), sequence.bucket(s)) for s in range(sequence.epoch_steps)
    ]
    mixed = np.random.default_rng(0).permutation(len(data))
    stretches = np.split(mixed, range(STRETCH * size, len(mixed), STRETCH * size))
    grouped = [part[np.argsort(-data.lengths[part], kind="stable")] for part in stretches]
    made_in = {
        "same": ours,
        "grouped": padded(data, np.concatenate(grouped), size),
        "shuffled": padded(data, mixed, size),
    }
    return {kind: sampled(batches, size, options.batches) for kind, batches in made_in.items()}


def padded(data: rows.Rows, numbers: np.ndarray, size: int) -> Batches:
    """Batches in the given order, each as long as its longest row."""
    parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    return [data.batch(part, int(data.lengths[part].max())) for part in parts]


def sampled(batches: Batches, size: int, count: int) -> Batches:
    """`count` of the full batches, evenly spread over their lengths, the middle of each part."""
    full = [b for b in batches if b["weight"].sum() == size]
    full.sort(key=lambda b: b["docs"].sum() + 1000 * b["docs"].size)
    return [full[int((i + 0.5) * len(full) / count)] for i in range(min(count, len(full)))]


def set_up(
    name: str, batches: dict[str, Batches], options: argparse.Namespace
) -> dict[str, tuple[Any, Connection]]:
    """A process for every way of running the model, compiled and waiting."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    for variant in options.variants.split(","):
        kinds = ("same",) if variant in ("ours", "compiled") else options.kinds.split(",")
        given = {kind: batches[kind] for kind in kinds}
        here, there = context.Pipe()
        arguments = (there, variant, name, given, options.model, options.threads)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        print(f"  setting up {variant}", file=sys.stderr, flush=True)
        said = here.recv()
        if isinstance(said, str):
            print(f"  {variant} does not run here: {said}", file=sys.stderr)
            continue
        workers[variant] = (process, here)
    return workers


def measure(workers: dict[str, tuple[Any, Connection]], rounds: int) -> dict[str, list[float]]:
    """Examples/s of every contender in every round."""
    speeds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for variant, (_, pipe) in workers.items():
            pipe.send(True)
            for kind, speed in pipe.recv().items():
                who = variant if variant == "ours" else f"{variant}/{kind}"
                speeds.setdefault(who, []).append(speed)
    return speeds


def work(
    pipe: Connection,
    variant: str,
    name: str,
    batches: dict[str, Batches],
    size: str,
    threads: int,
) -> None:
    """A contender: compiles, says that it is ready, and runs a round whenever it is asked to."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    make = ours if variant == "ours" else theirs
    try:
        run = make(variant, name, size, threads)
        for part in batches.values():
            run(part)
    except Exception as error:  # noqa: BLE001 - a variant that this machine lacks is left out, with its reason
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return
    pipe.send(True)
    while pipe.recv():
        speeds = {}
        for kind, part in batches.items():
            count = sum(int(batch["weight"].sum()) for batch in part)
            begin = time.perf_counter()
            run(part)
            speeds[kind] = count / (time.perf_counter() - begin)
        pipe.send(speeds)


def ours(variant: str, name: str, size: str, threads: int) -> Callable[[Batches], None]:
    """Our step or prediction over batches."""
    from electra_jax.host import heap

    heap.keep_freed_memory()
    import jax

    from electra_jax.finetune.heads import HeadSpec
    from electra_jax.finetune.network import NetworkSpec
    from electra_jax.finetune.options import ModelOptions, OptimOptions
    from electra_jax.finetune.program import Program, StepSpec
    from electra_jax.learn import mesh as meshes
    from electra_jax.model.electra import Dimensions

    del variant, threads
    programs.use_compilation_cache()
    layers, width, heads, ffn, embedding = SIZES[size]
    encoder = ModelOptions(
        layers=layers,
        width=width,
        heads=heads,
        ffn=ffn,
        embedding=embedding,
        positions=512,
        types=2,
        init_std=0.02,
        dropout=0.1,
        attention_dropout=0.1,
        dtype="float32",
        residual_dtype="float32",
        remat="none",
    )
    task = WORKLOADS[name][0]
    kind, outputs = ("classify", 2) if task == "sst2" else ("qa", 2)
    head = HeadSpec(
        kind=kind, style="hf", outputs=outputs, dropout=0.1, init_std=0.02, dtype="float32"
    )
    optim = OptimOptions(
        name="adamw",
        peak_lr=None,
        layer_decay=None,
        layer_decay_off_by_one=False,
        warmup=0.1,
        lr_power=1.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-6,
        weight_decay=0.0,
        clip_norm=1.0,
        frozen_layers=0,
    )
    network = NetworkSpec(dims=Dimensions(encoder.random(), 30522), heads=((task, head),))
    program = Program(
        StepSpec(network=network, optim=optim, layer_decay=0.8, reduction="mean", steps=10_000),
        meshes.build(meshes.MeshSpec(-1, 1)),
    )
    held = {"state": program.init(None, [0], [1e-4])}

    def train(batches: Batches) -> None:
        for batch in batches:
            held["state"], told = program.step(task, held["state"], batch)
        jax.block_until_ready(told)

    def predict(batches: Batches) -> None:
        said = [program.predict(task, held["state"]["params"], batch) for batch in batches]
        jax.device_get(said)

    return predict if name.endswith("predict") else train


def theirs(variant: str, name: str, size: str, threads: int) -> Callable[[Batches], None]:
    """transformers' model in one of PyTorch's ways, over batches."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers, width, heads, ffn, embedding = SIZES[size]
    config = transformers.ElectraConfig(
        vocab_size=30522,
        embedding_size=embedding,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        attn_implementation="eager" if variant == "eager" else "sdpa",
    )
    question = WORKLOADS[name][0] != "sst2"
    kind = (
        transformers.ElectraForQuestionAnswering
        if question
        else transformers.ElectraForSequenceClassification
    )
    model = kind(config)
    run: Any = torch.compile(model, dynamic=False) if variant == "compiled" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.0, fused=True
    )

    def train(batches: Batches) -> None:
        model.train()
        for batch in batches:
            inputs = tensors(batch, torch)
            loss = run(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def predict(batches: Batches) -> None:
        model.eval()
        with torch.inference_mode():
            for batch in batches:
                wanted = {k: v for k, v in tensors(batch, torch).items() if k != "labels"}
                run(**wanted).logits.numpy()

    return predict if name.endswith("predict") else train


def tensors(batch: dict[str, np.ndarray], torch: Any) -> dict[str, Any]:
    """A batch as transformers' arguments."""
    named = {
        "ids": "input_ids",
        "types": "token_type_ids",
        "docs": "attention_mask",
        "label": "labels",
        "start": "start_positions",
        "end": "end_positions",
    }
    return {
        named[name]: torch.tensor(x, dtype=torch.long) for name, x in batch.items() if name in named
    }


if __name__ == "__main__":
    main()
