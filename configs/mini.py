"""A model that learns something real on a CPU in an hour: 4 layers of width 128, rows of 128 tokens.

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 8192 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data/
    electra-jax pretrain --config mini --workdir run/ --config.data.path=data/

Hardware: two CPU cores, one hour.
Result: not yet measured.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """About 2 million parameters with a vocabulary of 8,192."""
    return ConfigDict(
        {
            "model": {
                "layers": 4,
                "width": 128,
                "heads": 2,
                "ffn": 512,
                "embedding": 128,
                "positions": 128,
                "types": 2,
                "generator_size": 1.0,
                "generator_layers": 1.0,
                "tying": "embeddings",
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "init_std": 0.02,
                "dtype": "float32",
                "residual_dtype": "float32",
                "remat": "none",
            },
            "objective": {
                "name": "electra",
                "mask_prob": 0.15,
                "mask_split": (0.85, 0.15, 0.0),  # mask, keep, random
                "whole_word": False,
                "temperature": 1.0,
                "disallow_correct": False,
                "uniform_generator": False,
                "generator_weight": 1.0,
                "discriminator_weight": 50.0,
            },
            "optim": {
                "name": "adam",  # the original's: no bias correction, decoupled decay
                "peak_lr": 1e-3,
                "warmup": 500,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 12_000,
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "phases": (),  # stretches on other data or batches: see docs/data.md
                "batch": 16,
                "accumulation": 1,
                "seed": 0,
                "log_every": 50,
                "eval_every": 1_000,
                "eval_batches": 128,
                "checkpoint_every": 500,
                "keep_last": 3,
                "keep_every": 0,
                "max_skipped": 10,
            },
            "data": {"path": ""},
            "mesh": {"data": -1, "fsdp": -1, "deterministic": False},  # -1, -1: chosen by memory
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
