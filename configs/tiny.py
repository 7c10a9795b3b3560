"""The smallest model with every part in it: for tests and a first look, seconds on one CPU core.

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 1000 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 64 --output data/
    electra-jax pretrain --config tiny --workdir run/ --config.data.path=data/

Hardware: one CPU core, seconds.
Result: none meant: 20 steps show that everything runs, not that anything is learned.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """2 layers of width 64 over embeddings of width 32, so that both projections exist."""
    return ConfigDict(
        {
            "model": {
                "layers": 2,
                "width": 64,
                "heads": 2,
                "ffn": 256,
                "embedding": 32,
                "positions": 128,
                "types": 2,
                "generator_size": 0.5,
                "generator_layers": 1.0,
                "tying": "embeddings",
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "init_std": 0.02,
                "dtype": "float32",
                "residual_dtype": "float32",
                "remat": "none",
                "vocab_rows": 0,  # of the word table; 0: as many as the tokenizer has tokens
            },
            "objective": {
                "name": "electra",
                "mask_prob": 0.15,
                "mask_split": (0.85, 0.15, 0.0),  # mask, keep, random
                "whole_word": False,
                "temperature": 1.0,
                "sampler": "gumbel",  # or grouped: the same distribution with less noise
                "disallow_correct": False,
                "uniform_generator": False,
                "generator_weight": 1.0,
                "discriminator_weight": 50.0,
            },
            "optim": {
                "name": "adam",  # the original's: no bias correction, decoupled decay
                "peak_lr": 1e-3,
                "warmup": 5,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 20,
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "budget": "",  # time for training, such as 24h: the learning rate ends with it
                "phases": (),  # stretches on other data or batches: see docs/data.md
                "batch": 8,
                "accumulation": 1,
                "seed": 0,
                "log_every": 5,
                "eval_every": 10,
                "eval_batches": 2,
                "checkpoint_every": 10,
                "keep_last": 2,
                "keep_every": 0,
                "max_skipped": 10,
                "average": 0.0,  # decay of an average of the weights, such as 0.999; 0: none
            },
            "data": {
                "path": "",
                "window": 0,  # shards mixed at a time, for data too large for local disk; 0: all
            },
            "mesh": {"data": -1, "fsdp": -1, "deterministic": False},  # -1, -1: chosen by memory
            "report": {"tensorboard": False, "wandb": ""},
        }
    )
