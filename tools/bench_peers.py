#!/usr/bin/env python3
"""Races our train step against the same step on PyTorch + transformers, turn by turn.

    python tools/bench_peers.py                                  # what suits the device there is
    python tools/bench_peers.py --cases small:128:16 --dropout 0.1 --rounds 20 --json
    python tools/bench_peers.py --cases modern-small:128:16 modern-small:1024:4:4 --dropout 0
    python tools/bench_peers.py --largest 4 --cases small:128    # in place of racing: the largest batch in 4 GiB

Every contender has its own process and works only when it is its turn: a few steps each, round after
round, so that whatever else the machine does meets all alike. They compile one after another, because XLA
tries a GPU's kernels out and takes the fastest. The step is the whole joint ELECTRA step:
masking on the device, generator, vocabulary head on the masked positions only, Gumbel-max samples,
discriminator, gradients, clipping, AdamW (fused), in float32 on a CPU and bfloat16 on a GPU, on full rows
of the same length. Our residual stream is float32, as the recipes say; "electra_jax-bfloat16" is with one of
bfloat16. A recipe of the modern family races transformers' ModernBERT, under the same joint loss;
CONFIG:LENGTH:BATCH:N has N documents of one length in every row, for which ModernBERT gets masks and positions
ready-made. Contenders of PyTorch: attention "eager" and "sdpa", and "sdpa" under torch.compile; with
"-kept" they keep freed memory from step to step, as our commands do on a CPU and PyTorch does not by itself.
Memory is the most that a contender has held after its warm-up: on a GPU of the card, on a CPU of the machine.
Prints the table of docs/performance.md: on a machine with a GPU it fills in the GPU's rows.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

OURS = "electra_jax"
OURS_LOW = "electra_jax-bfloat16"
PEERS = ("eager", "sdpa", "compiled")
KEPT = "-kept"
EVERYONE = (OURS, OURS_LOW, *PEERS, *(peer + KEPT for peer in PEERS))
VOCAB, SPECIAL_BELOW, CLS, SEP, MASK = 30_522, 999, 101, 102, 103
CPU_CASES = ("small:128:16", "modern-small:128:16", "modern-small:1024:4:4")
GPU_CASES = ("small:128:512", "base:512:64", "large:512:32")
BOTH = ("0.1", "0")
GRANULE = 8  # rows
# Config, length and rows of a batch, dropout, dtype, documents of a row.
Shape = tuple[str, int, int, float, str, int]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = "CONFIG:LENGTH:BATCH[:DOCUMENTS]"
    parser.add_argument("--cases", nargs="+", metavar=cases, help="shapes to race")
    parser.add_argument("--dropout", nargs="+", default=BOTH, help="rates, of weights and states")
    parser.add_argument("--contenders", nargs="+", default=[OURS, *PEERS], choices=EVERYONE)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument(
        "--largest", type=float, metavar="GIB", help="find the largest batch instead"
    )
    parser.add_argument("--json", action="store_true", help="a JSON line a row")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    import torch

    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu else "float32"
    races = {}
    for case in args.cases or (GPU_CASES if gpu else CPU_CASES):
        config, length, *batch = case.split(":")
        rows, documents = (*map(int, batch), *(GRANULE, 1)[len(batch) :])
        for rate in args.dropout:
            races[case, rate] = (config, int(length), rows, float(rate), dtype, documents)
    for (case, _), shape in races.items():
        found: Iterable[dict[str, Any]]
        if args.largest:
            found = (largest(name, shape, args.largest) for name in args.contenders)
        else:
            found = race(args.contenders, shape, args.rounds, args.steps)
        for row in found:
            row |= {"case": case, "dropout": shape[3], "dtype": dtype}
            print(json.dumps(row) if args.json else line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    """A row of the table, Markdown."""
    start = [row["case"], f"{row['dropout']:g}", row["name"]]
    if "failed" in row:
        return f"| {' | '.join([*start, row['failed']])} |"
    memory = f"{row['memory_gib']:.2f}"
    if "batch" in row:
        return f"| {' | '.join([*start, str(row['batch']), memory])} |"
    cells = [
        *start,
        f"{row['step_s'] * 1e3:.0f} ({row['low_s'] * 1e3:.0f} to {row['high_s'] * 1e3:.0f})",
        f"{row['cpu_s'] * 1e3:.0f}",
        f"{row['tokens_per_s']:,.0f}",
        "" if row["mfu"] is None else f"{row['mfu']:.1%}",
        memory,
        "" if row["ratio"] is None else f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f})",
    ]
    return f"| {' | '.join(cells)} |"


def race(
    names: Sequence[str],
    shape: Shape,
    rounds: int,
    steps: int,
) -> list[dict[str, Any]]:
    """Figures by contender, each with our speed as a multiple of its speed (wall, processor)."""
    workers = [Worker(name, shape) for name in names]
    for _ in range(rounds):
        for worker in workers:
            worker.turn(steps)
    rows = [worker.close(shape) for worker in workers]
    useful, peak = useful_flops(shape), vendors_peak()
    ours = next((row for row in rows if row["name"] == OURS and "failed" not in row), None)
    for row in rows:
        if "failed" not in row:
            row["ratio"] = ours and row["step_s"] / ours["step_s"]
            row["cpu_ratio"] = ours and row["cpu_s"] / ours["cpu_s"]
            row["mfu"] = peak and useful / row["step_s"] / peak
    return rows


def useful_flops(shape: Shape) -> float:
    """Of a step, everybody's."""
    from electra_jax.bench.synthetic import synthetic
    from electra_jax.pretrain import options, speed
    from electra_jax.spec import load_config

    run = options.run_spec(load_config(shape[0], overrides(shape)).to_dict())
    (phase,) = run.phases(synthetic(shape[1], VOCAB))
    return speed.useful_flops(run, phase)


def vendors_peak() -> float | None:
    """FLOP/s of the GPU by its data sheet; None where there is none, or an unknown one."""
    import torch

    from electra_jax.learn.hardware import peak_of

    return peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def largest(name: str, shape: Shape, limit: float) -> dict[str, Any]:
    """The most rows, by GRANULE, that the contender trains on within so many GiB; each try has its own process."""

    def trial(rows: int) -> dict[str, Any]:
        worker = Worker(name, (*shape[:2], rows, *shape[3:]))
        worker.turn(1)
        return worker.close(shape)

    tried = {GRANULE: trial(GRANULE)}
    if "failed" in tried[GRANULE]:
        return tried[GRANULE]

    def fits(rows: int) -> bool:
        tried[rows] = tried.get(rows) or trial(rows)
        return tried[rows].get("memory_gib", float("inf")) <= limit  # a failure: not even that much

    low, high = 0, GRANULE
    while fits(high):
        low, high = high, 2 * high
    while high - low > GRANULE:
        middle = (low + high) // 2 // GRANULE * GRANULE
        low, high = (middle, high) if fits(middle) else (low, middle)
    return {"name": name, "batch": low, "memory_gib": tried[low or GRANULE]["memory_gib"]}


class Worker:
    """A contender in its own process."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.name, self.times = name, []
        self.pipe, far = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=work, args=(name, shape, far), daemon=True)
        self.process.start()
        far.close()
        self.failed = self.receive()  # None once it is ready

    def receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            return "its process died"

    def turn(self, steps: int) -> None:
        if self.failed is None:
            self.pipe.send(steps)
            got = self.receive()
            if isinstance(got, str):
                self.failed = got
            else:
                self.times.append(got)

    def close(self, shape: Shape) -> dict[str, Any]:
        if self.failed is not None:
            return {"name": self.name, "failed": self.failed}
        self.pipe.send(0)
        memory = self.receive()
        self.process.join()
        wall, cpu = zip(*self.times, strict=True)
        low, _, high = statistics.quantiles(wall, n=4) if len(wall) > 1 else wall * 3
        return {
            "name": self.name,
            "step_s": statistics.median(wall),
            "low_s": low,
            "high_s": high,
            "cpu_s": statistics.median(cpu),
            "tokens_per_s": shape[1] * shape[2] / statistics.median(wall),
            "memory_gib": memory / 2**30,
        }


def work(name: str, shape: Shape, pipe: Connection) -> None:
    """A process: makes the step, warms it up, then times as many steps as it is told; 0 ends it."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others need room on the GPU
    begin = time.perf_counter()
    from electra_jax.host import resident

    try:
        steps, memory = ours(name, shape) if name in (OURS, OURS_LOW) else theirs(name, shape)
        steps(3)
        config, length, rows, rate = shape[:4]
        took = f"ready after {time.perf_counter() - begin:.0f} s"
        print(f"{config}:{length}:{rows}, dropout {rate:g}, {name}: {took}", file=sys.stderr)
        resident.forget_peak()
        pipe.send(None)
        while count := pipe.recv():
            wall, cpu = time.perf_counter(), time.process_time()
            steps(count)
            pipe.send(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
        pipe.send(memory())
    except Exception as error:  # noqa: BLE001 - whatever it is, the race goes on without this one
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0][:160]}")


def held() -> float:
    """The most bytes of the machine that this process has held since its warm-up."""
    from electra_jax.host import resident

    return resident.peak() or float("nan")


def overrides(shape: Shape) -> list[str]:
    """The config of both sides."""
    config, length, batch, rate, dtype, _ = shape
    rates = [f"model.dropout={rate}", f"model.attention_dropout={rate}"]
    if is_modern(config):
        rates = [f"model.mlp_dropout={rate}", f"model.attention_dropout={rate}"]
        rates += ["optim.consistent_rms=0.0"]  # of Muon
    sizes = [f"train.batch={batch}", "train.accumulation=1", f"model.positions={max(length, 512)}"]
    return [*rates, *sizes, f"model.dtype={dtype}", "model.remat=none", "optim.name=adamw"]


def is_modern(config: str) -> bool:
    """Whether a recipe is of the modern family."""
    return config.startswith("modern")


def documents(shape: Shape) -> tuple[Any, Any]:
    """The number of each token's document, from 1, and its place in it; int32 [B, L]."""
    import numpy as np

    _, length, rows, _, _, count = shape
    at_L = np.arange(length, dtype=np.int32)
    size = -(-length // count)
    docs_BxL, places_BxL = (np.tile(x, (rows, 1)) for x in (1 + at_L // size, at_L % size))
    return docs_BxL, places_BxL


def ours(
    name: str,
    shape: Shape,
) -> tuple[Callable[[int], None], Callable[[], float]]:
    """The step that `electra-jax pretrain` runs."""
    from electra_jax.host import heap

    heap.keep_freed_memory()  # as every command that trains does, before JAX begins
    import jax

    from electra_jax.bench.synthetic import synthetic
    from electra_jax.data.loader import put_rows
    from electra_jax.learn import mesh
    from electra_jax.pretrain import options, program
    from electra_jax.spec import load_config

    low = ["model.residual_dtype=bfloat16"] if name == OURS_LOW else []
    run = options.run_spec(load_config(shape[0], overrides(shape) + low).to_dict())
    (phase,) = run.phases(synthetic(shape[1], VOCAB))
    built = program.build(run, phase, mesh.build(run.mesh))
    compiled = built.compile_train_step()
    batch = put_rows(phase.data.source("train"), phase.rows(0, 0), built.batch_sharding)
    if shape[5] > 1:
        packed = dict(zip(("docs", "positions"), documents(shape), strict=True))
        batch |= {key: jax.device_put(x, built.batch_sharding) for key, x in packed.items()}
    state = built.init()

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, sums = compiled(state, batch)
        jax.block_until_ready(sums)

    stats = jax.local_devices()[0].memory_stats  # None on a CPU
    return steps, lambda: (stats() or {}).get("peak_bytes_in_use") or held()


def theirs(name: str, shape: Shape) -> tuple[Callable[[int], None], Callable[[], float]]:
    """The same step on transformers' modules."""
    if name.endswith(KEPT):
        from electra_jax.host import heap

        heap.keep_freed_memory()
    name = name.removesuffix(KEPT)
    import torch

    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = (modern_joint if is_modern(shape[0]) else joint)(name, shape).to(device).train()
    loss_of = torch.compile(model) if name == "compiled" else model
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    descend = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.999), eps=1e-6, fused=True)
    draw = torch.Generator().manual_seed(0)
    ids_BxL = torch.randint(SPECIAL_BELOW, VOCAB, (shape[2], shape[1]), generator=draw)
    ids_BxL[:, 0], ids_BxL[:, shape[1] // 2], ids_BxL[:, -1] = CLS, SEP, SEP
    ids_BxL = ids_BxL.to(device)

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.autocast(device.type, torch.bfloat16, enabled=shape[4] == "bfloat16"):
                loss = loss_of(ids_BxL)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            descend.step()
            descend.zero_grad(set_to_none=True)
        loss.item()  # waits for the device

    if device.type == "cuda":
        return steps, torch.cuda.max_memory_allocated
    return steps, held


def joint(name: str, shape: Shape) -> Any:
    """Generator and discriminator with shared embeddings, and the joint loss as `forward`."""
    import torch
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    from electra_jax.objective.corrupt import slot_count
    from electra_jax.pretrain import options
    from electra_jax.spec import load_config

    run = options.run_spec(load_config(shape[0], overrides(shape)).to_dict())
    dims, mask_prob = run.dimensions(VOCAB), run.objective["mask_prob"]

    def config(encoder: Any) -> ElectraConfig:
        layer = encoder.stack[0]
        return ElectraConfig(
            vocab_size=VOCAB,
            embedding_size=encoder.embedding,
            hidden_size=layer.width,
            num_hidden_layers=encoder.layers,
            num_attention_heads=layer.heads,
            intermediate_size=layer.ffn,
            hidden_dropout_prob=layer.dropout,
            attention_probs_dropout_prob=layer.attention_dropout,
            max_position_embeddings=run.model.positions,
            attn_implementation="eager" if name == "eager" else "sdpa",
        )

    class Joint(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.discriminator = ElectraForPreTraining(config(dims.discriminator))
            self.generator = ElectraForMaskedLM(config(dims.generator))
            self.generator.electra.embeddings = self.discriminator.electra.embeddings
            self.generator.generator_lm_head.weight = (
                self.discriminator.electra.embeddings.word_embeddings.weight
            )
            self.slots = slot_count(mask_prob, shape[1])

        def words(self, masked_BxL: torch.Tensor, at_BxK: torch.Tensor) -> torch.Tensor:
            hidden_BxLxD = self.generator.electra(masked_BxL)[0]
            at_BxKxD = at_BxK[..., None].expand(-1, -1, hidden_BxLxD.shape[-1])
            hidden_BxKxE = self.generator.generator_predictions(hidden_BxLxD.gather(1, at_BxKxD))
            return self.generator.generator_lm_head(hidden_BxKxE)

        def replaced(self, fake_BxL: torch.Tensor) -> torch.Tensor:
            return self.discriminator(fake_BxL).logits

        def forward(self, ids_BxL: torch.Tensor) -> torch.Tensor:
            return joint_loss(ids_BxL, self.slots, self.words, self.replaced)

    return Joint()


def modern_joint(name: str, shape: Shape) -> Any:
    """The same on transformers' ModernBERT."""
    import torch
    from transformers import (
        ModernBertConfig,
        ModernBertForMaskedLM,
        ModernBertForTokenClassification,
    )

    from electra_jax.objective.corrupt import slot_count
    from electra_jax.pretrain import options
    from electra_jax.spec import load_config

    run = options.run_spec(load_config(shape[0], overrides(shape)).to_dict())
    dims, mask_prob, spec = run.dimensions(VOCAB), run.objective["mask_prob"], run.model

    def config(encoder: Any) -> ModernBertConfig:
        layer = encoder.stack[0]
        return ModernBertConfig(
            vocab_size=VOCAB,
            hidden_size=layer.width,
            num_hidden_layers=encoder.layers,
            num_attention_heads=layer.heads,
            intermediate_size=layer.ffn,
            attention_dropout=layer.attention_dropout,
            mlp_dropout=layer.mlp_dropout,
            max_position_embeddings=spec.positions,
            local_attention=spec.local_attention,
            global_attn_every_n_layers=spec.global_attn_every_n_layers,
            num_labels=1,
            attn_implementation="eager" if name == "eager" else "sdpa",
            **dict.fromkeys((f"{x}_token_id" for x in ("pad", "bos", "eos", "cls", "sep")), 0),
        )

    class Joint(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.discriminator = ModernBertForTokenClassification(config(dims.discriminator))
            self.generator = ModernBertForMaskedLM(config(dims.generator))
            self.generator.model.embeddings = self.discriminator.model.embeddings
            self.generator.decoder.weight = (
                self.discriminator.model.embeddings.tok_embeddings.weight
            )
            self.slots = slot_count(mask_prob, shape[1])
            self.masked = shape[5] > 1
            if self.masked:  # made once: in training they would be made for every batch
                docs_BxL, places_BxL = map(torch.tensor, documents(shape))
                away_LxL = (torch.arange(shape[1])[:, None] - torch.arange(shape[1])).abs()
                seen = (docs_BxL[:, :, None] == docs_BxL[:, None, :])[:, None]
                near = seen & (away_LxL <= spec.local_attention // 2)
                if name == "eager":
                    seen, near = (torch.where(x, 0.0, -1e9) for x in (seen, near))
                self.register_buffer("seen", seen)
                self.register_buffer("near", near)
                self.register_buffer("places", places_BxL.long())

        def packed(self) -> dict[str, Any]:
            if not self.masked:
                return {}
            mask = {"full_attention": self.seen, "sliding_attention": self.near}
            return {"attention_mask": mask, "position_ids": self.places}

        def words(self, masked_BxL: torch.Tensor, at_BxK: torch.Tensor) -> torch.Tensor:
            hidden_BxLxD = self.generator.model(masked_BxL, **self.packed())[0]
            at_BxKxD = at_BxK[..., None].expand(-1, -1, hidden_BxLxD.shape[-1])
            return self.generator.decoder(self.generator.head(hidden_BxLxD.gather(1, at_BxKxD)))

        def replaced(self, fake_BxL: torch.Tensor) -> torch.Tensor:
            return self.discriminator(fake_BxL, **self.packed()).logits[..., 0]

        def forward(self, ids_BxL: torch.Tensor) -> torch.Tensor:
            return joint_loss(ids_BxL, self.slots, self.words, self.replaced)

    return Joint()


def joint_loss(
    ids_BxL: Any, slots: int, words: Callable[[Any, Any], Any], replaced: Callable[[Any], Any]
) -> Any:
    """Masks, generates, samples and detects; `words` gives logits [B, K, V], `replaced` a logit a token [B, L]."""
    import torch
    from torch.nn import functional as F

    score_BxL = torch.rand(ids_BxL.shape, device=ids_BxL.device)
    score_BxL = score_BxL.masked_fill(ids_BxL < SPECIAL_BELOW, -1.0)
    at_BxK = score_BxL.topk(slots, dim=1).indices
    target_BxK = ids_BxL.gather(1, at_BxK)
    keep_BxK = torch.rand(at_BxK.shape, device=ids_BxL.device) >= 0.85
    masked_BxL = ids_BxL.scatter(1, at_BxK, target_BxK.where(keep_BxK, MASK))
    logits_BxKxV = words(masked_BxL, at_BxK).float()
    mlm = F.cross_entropy(logits_BxKxV.flatten(0, 1), target_BxK.flatten())
    with torch.no_grad():
        # Gumbel-max: -log of an exponential variable is Gumbel noise.
        noise_BxKxV = torch.empty_like(logits_BxKxV).exponential_().log()
        sampled_BxK = (logits_BxKxV - noise_BxKxV).argmax(-1)
        fake_BxL = ids_BxL.scatter(1, at_BxK, sampled_BxK)
        replaced_BxL = (fake_BxL != ids_BxL).float()
    logit_BxL = replaced(fake_BxL).float()
    rtd = F.binary_cross_entropy_with_logits(logit_BxL, replaced_BxL)
    return mlm + 50.0 * rtd


if __name__ == "__main__":
    main()
