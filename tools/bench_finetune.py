#!/usr/bin/env python3
"""Measures fine-tuning and prediction beside PyTorch and transformers, in alternating rounds.

    python tools/bench_finetune.py --data ../shared/data --vocab ../shared/data/vocab/bert-base-uncased-vocab.txt

Every contender is a process of its own, which sets up and compiles, and then waits; rounds go around, one process at
work at a time, so that what else the machine does meets all of them. Same examples, same model (ELECTRA-small's
dimensions unless --model says otherwise), dropout 0.1, batch, Adam, clipping, threads. PyTorch gets exactly our batches
(bucketed: the least padding), and, as `own`, what its users do: shuffled batches padded to their longest example. Its
variants are eager and sdpa attention and torch.compile. Prints examples/s and our ratio to the fastest.
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

from electra_jax.finetune import features, order, rows, tasks
from electra_jax.text import tokenizer

SIZES = {  # layers, width, heads, ffn, embedding
    "mini": (4, 128, 2, 512, 128),
    "small": (12, 256, 4, 1024, 128),
    "base": (12, 768, 12, 3072, 768),
}
VARIANTS = ("ours", "eager", "sdpa", "compiled")
WORKLOADS = {  # task, file under --data, longest row, batch
    "sst2-train": ("sst2", "glue/SST-2/train.tsv", 128, 32),
    "sst2-predict": ("sst2", "glue/SST-2/dev.tsv", 128, 64),
    "squad-train": ("squad1", "squad/train-v1.1-subset.json.gz", 384, 32),
}
Batches = list[dict[str, np.ndarray]]


def main() -> None:
    """Runs the rounds of every workload and prints a table and JSON."""
    options = parse()
    found = {}
    for name in options.workloads.split(","):
        batches, shuffled = make_batches(name, options)
        padding = [np.mean([b["docs"].mean() for b in part]) for part in (batches, shuffled)]
        print(
            f"{name}: {len(batches)} batches a round; rows filled {padding[0]:.0%}, {padding[1]:.0%} own"
        )
        speeds = measure(name, batches, shuffled, options)
        found[name] = {who: statistics.median(values) for who, values in speeds.items()}
        ours, theirs = found[name]["ours"], {w: s for w, s in found[name].items() if w != "ours"}
        for who, speed in found[name].items():
            spread = f"{min(speeds[who]):.1f} to {max(speeds[who]):.1f}"
            print(f"  {who:14} {speed:8.1f} examples/s ({spread})  ours is {ours / speed:.2f}x")
        for kind in ("same", "own"):
            group = {w: s for w, s in theirs.items() if w.endswith(kind)}
            if group:
                best = max(group, key=lambda w: group[w])
                print(f"  ours / fastest on {kind} batches ({best}): {ours / group[best]:.2f}")
    print(json.dumps(found, indent=2))


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
    parser.add_argument("--model", default="small", choices=SIZES)
    parser.add_argument("--batches", type=int, default=16, help="of a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-own", action="store_true", help="leave PyTorch's own batches out")
    return parser.parse_args()


def make_batches(name: str, options: argparse.Namespace) -> tuple[Batches, Batches]:
    """Batches of one round: in our buckets, and shuffled, padded to their longest row."""
    task_name, path, longest, size = WORKLOADS[name]
    task, words = tasks.get(task_name), tokenizer.load(options.vocab)
    examples = task.read(Path(options.data) / path, "train")
    chosen = order.subset(len(examples), 4 * size * options.batches, 0)
    examples = [examples[i] for i in chosen]
    labels = task.labels or ()
    made = features.build(task, examples, words, longest, labels, training=True)
    data = rows.of_features(made, words.special.pad)
    buckets = order.bucket_lengths(data.lengths, 4, longest)
    if name.endswith("predict"):
        ours = [data.batch(n, length) for length, n in order.fixed(data.lengths, buckets, size)]
        step = max(1, len(ours) // options.batches)
        numbers = np.arange(len(data))
        return ours[::step], own(data, numbers, size, options.batches)
    sequence = order.Order(data.lengths, buckets, size, 0)
    ours = [
        data.batch(sequence.rows(s, 0), sequence.bucket(s))
        for s in range(min(options.batches, sequence.epoch_steps - 1))
    ]
    return ours, own(data, np.random.default_rng(0).permutation(len(data)), size, options.batches)


def own(data: rows.Rows, numbers: np.ndarray, size: int, count: int) -> Batches:
    """Batches in the given order, each as long as its longest row."""
    parts = [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)][:count]
    return [data.batch(part, int(data.lengths[part].max())) for part in parts]


def measure(
    name: str, batches: Batches, shuffled: Batches, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Examples/s of every contender in every round."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    for variant in options.variants.split(","):
        kinds = ["ours"] if variant == "ours" else [f"{variant}/same", f"{variant}/own"]
        if options.no_own:
            kinds = [k for k in kinds if not k.endswith("/own")]
        for kind in kinds:
            if kind == "compiled/own":
                continue  # a compilation a length: nobody would
            given = shuffled if kind.endswith("/own") else batches
            here, there = context.Pipe()
            arguments = (there, variant, name, given, options.model, options.threads)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            print(f"  setting up {kind}", file=sys.stderr, flush=True)
            said = here.recv()
            if isinstance(said, str):
                print(f"  {kind} does not run here: {said}", file=sys.stderr)
                continue
            workers[kind] = (process, here)
    speeds: dict[str, list[float]] = {kind: [] for kind in workers}
    for _ in range(options.rounds):
        for kind, (_, pipe) in workers.items():
            pipe.send(True)
            speeds[kind].append(pipe.recv())
    for process, _ in workers.values():
        process.terminate()
    return speeds


def work(
    pipe: Connection, variant: str, name: str, batches: Batches, size: str, threads: int
) -> None:
    """A contender: compiles, says that it is ready, and runs a round whenever it is asked to."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    make = ours if variant == "ours" else theirs
    try:
        run = make(variant, name, batches, size, threads)
        run()
    except Exception as error:  # noqa: BLE001 - a variant that this machine lacks is left out, with its reason
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return
    pipe.send(True)
    count = sum(int(batch["weight"].sum()) for batch in batches)
    while pipe.recv():
        begin = time.perf_counter()
        run()
        pipe.send(count / (time.perf_counter() - begin))


def ours(variant: str, name: str, batches: Batches, size: str, threads: int) -> Callable[[], None]:
    """Our step or prediction over the batches."""
    import jax

    from electra_jax.finetune.heads import HeadSpec
    from electra_jax.finetune.network import NetworkSpec
    from electra_jax.finetune.options import EncoderSpec, OptimOptions
    from electra_jax.finetune.program import Program, StepSpec
    from electra_jax.model.electra import Dimensions
    from electra_jax.train import mesh as meshes
    from electra_jax.train import program as programs

    del variant, threads
    programs.use_compilation_cache()
    layers, width, heads, ffn, embedding = SIZES[size]
    precision = ("float32", "float32", "none")
    encoder = EncoderSpec(layers, width, heads, ffn, embedding, 512, 2, 0.02, 0.1, 0.1, *precision)
    task = WORKLOADS[name][0]
    kind, outputs = ("classify", 2) if task == "sst2" else ("qa", 2)
    head = HeadSpec(kind, "hf", outputs, 0.1, 0.02, "float32")
    optim = OptimOptions("adamw", None, None, False, 0.1, 1.0, 0.9, 0.999, 1e-6, 0.0, 1.0, 0)
    network = NetworkSpec(Dimensions(encoder.random(), 30522), ((task, head),))
    program = Program(
        StepSpec(network, optim, 0.8, "mean", 10_000), meshes.build(meshes.MeshSpec(-1, 1))
    )
    held = {"state": program.init(None, [0], [1e-4])}

    def train() -> None:
        for batch in batches:
            held["state"], told = program.step(task, held["state"], batch)
        jax.block_until_ready(told)

    def predict() -> None:
        said = [program.predict(task, held["state"]["params"], batch) for batch in batches]
        jax.device_get(said)

    return predict if name.endswith("predict") else train


def theirs(
    variant: str, name: str, batches: Batches, size: str, threads: int
) -> Callable[[], None]:
    """transformers' model in one of PyTorch's ways, over the batches."""
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.0)
    given = [tensors(batch, torch) for batch in batches]

    def train() -> None:
        model.train()
        for inputs in given:
            loss = run(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def predict() -> None:
        model.eval()
        with torch.inference_mode():
            for inputs in given:
                wanted = {k: v for k, v in inputs.items() if k != "labels"}
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
