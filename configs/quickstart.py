"""The model of `electra-jax quickstart`: learns enough in a minute on two CPU cores to be looked at.

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 4096 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 64 --output data/
    electra-jax pretrain --config quickstart --workdir run/ --config.data.path=data/

Hardware: two CPU cores, one minute.
Result: not yet measured.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Two layers of width 128, no dropout: a minute is too short to overfit."""
    return ConfigDict(
        {
            "model": {
                "layers": 2,
                "width": 128,
                "heads": 2,
                "ffn": 512,
                "embedding": 128,
                "positions": 128,
                "types": 2,
                "generator_size": 0.5,
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
                "peak_lr": 2e-3,
                "warmup": 50,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 500,
                "batch": 32,
                "accumulation": 1,
                "seed": 0,
                "log_every": 25,
                "eval_every": 250,
                "eval_batches": 20,
                "checkpoint_every": 250,
                "keep_last": 2,
                "keep_every": 0,
                "max_skipped": 10,
            },
            "data": {"path": ""},
            "mesh": {"data": -1, "fsdp": 1},  # -1: all devices that are left
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
