"""ELECTRA-Small as in the paper (Clark et al., 2020, table 6): rows of 128 tokens, batch 128, 1M steps.

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 30522 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data/
    electra-jax pretrain --config small --workdir run/ --config.data.path=data/

Hardware: the paper took 4 days on one V100; any one accelerator.
Result: not yet measured here.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """ELECTRA-Small: 14,196,219 parameters with a vocabulary of 30,522."""
    return ConfigDict(
        {
            "model": {
                "layers": 12,
                "width": 256,
                "heads": 4,
                "ffn": 1024,
                "embedding": 128,
                "positions": 512,
                "types": 2,
                "generator_size": 0.25,
                "generator_layers": 1.0,
                "tying": "embeddings",
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "init_std": 0.02,
                "dtype": "bfloat16",
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
                "peak_lr": 5e-4,
                "warmup": 10_000,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 1_000_000,
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "budget": "",  # time for training, such as 24h: the learning rate ends with it
                "phases": (),  # stretches on other data or batches: see docs/data.md
                "batch": 128,
                "accumulation": 1,
                "seed": 0,
                "log_every": 100,
                "eval_every": 10_000,
                "eval_batches": 100,
                "checkpoint_every": 1_000,
                "keep_last": 5,
                "keep_every": 100_000,
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
