"""ELECTRA's own encoder in the size of `mini`: 2 layers of width 128, one encoder for both networks, an hour of a CPU.

Rows of 32 tokens first, from which attention to neighbours is learned sooner than from long ones, then rows of 128
with the weights that came of it:

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 4096 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 32 --output data32/
    electra-jax pretrain --config electra-mini --workdir short/ --config.data.path=data32/
    electra-jax export --workdir short/ --output hf-short/
    electra-jax import --discriminator hf-short/discriminator --generator hf-short/generator --workdir run/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data128/
    electra-jax pretrain --config electra-mini:long --workdir run/ --config.data.path=data128/

Hardware: two CPU cores of an AMD EPYC (Zen 5), shared with other programs, 2026-11-22; 45 minutes, 52 of CPU.
Result: held-out MLM loss 3.76 (word frequencies 5.73, bigrams 4.20), discriminator AUC 0.684 (word frequencies 0.543).
5,000 steps more gave 3.71 and 0.686; curves and what they show: docs/results/mini.md.
"""

from ml_collections import ConfigDict

from electra_jax.spec import unknown_name

STAGES = {
    "short": {
        "mask_prob": 0.3,
        "peak_lr": 2.5e-3,
        "warmup": 300,
        "steps": 9_000,
        "batch": 32,
        "eval_batches": 100,
    },
    "long": {
        "mask_prob": 0.2,
        "peak_lr": 2e-3,
        "warmup": 200,
        "steps": 12_000,
        "batch": 8,
        "eval_batches": 128,
    },
}


def get_config(stage: str = "short") -> ConfigDict:
    """975,233 parameters with a vocabulary of 4,096; `stage` is short (rows of 32) or long (rows of 128)."""
    if stage not in STAGES:
        raise unknown_name("stage of electra-mini", stage, STAGES)
    own = STAGES[stage]
    return ConfigDict(
        {
            "model": {
                "layers": 2,
                "width": 128,
                "heads": 4,
                "ffn": 512,
                "embedding": 128,
                "positions": 128,
                "types": 2,
                "generator_size": 1.0,
                "generator_layers": 1.0,
                "tying": "all",
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "init_std": 0.05,  # 0.02 suits widths of hundreds
                "dtype": "float32",
                "residual_dtype": "float32",
                "remat": "none",
                "vocab_rows": 0,  # of the word table; 0: as many as the tokenizer has tokens
            },
            "objective": {
                "name": "electra",
                "mask_prob": own["mask_prob"],
                "mask_split": (0.85, 0.15, 0.0),  # mask, keep, random
                "whole_word": False,
                "temperature": 1.0,
                "sampler": "gumbel",  # or grouped: the same distribution with less noise
                "disallow_correct": False,
                "uniform_generator": False,
                "generator_weight": 1.0,
                "discriminator_weight": 10.0,  # at 50 the shared weights learn little from the generator
            },
            "optim": {
                "name": "adamw",
                "peak_lr": own["peak_lr"],
                "warmup": own["warmup"],
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.98,  # 0.999 averages over too much of so short a run
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": own["steps"],
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "budget": "",  # time for training, such as 24h: the learning rate ends with it
                "phases": (),  # stretches on other data or batches: see docs/data.md
                "batch": own["batch"],
                "accumulation": 1,
                "seed": 0,
                "log_every": 100,
                "eval_every": 1_000,
                "eval_batches": own["eval_batches"],
                "checkpoint_every": 1_000,
                "keep_last": 3,
                "keep_every": 0,
                "max_skipped": 10,
                "average": 0.0,  # decay of an average of the weights, such as 0.999; 0: none
            },
            "data": {
                "path": "",
                "window": 0,  # shards mixed at a time, for data too large for local disk; 0: all
            },
            "mesh": {"data": -1, "fsdp": -1, "deterministic": False},  # -1, -1: chosen by memory
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
