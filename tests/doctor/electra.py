"""What the runs of broken.py are trained by: one narrow layer of ELECTRA's own encoder, Adam, rows of 32 tokens."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One narrow layer, and settings under which it gets beyond word frequencies in 3,000 steps."""
    return ConfigDict(
        {
            "model": {
                "layers": 1,
                "width": 64,
                "heads": 4,
                "ffn": 256,
                "embedding": 64,
                "positions": 64,
                "types": 2,
                "generator_size": 1.0,
                "generator_layers": 1.0,
                "tying": "embeddings",
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
                "mask_prob": 0.3,  # twice the paper's: more to learn from each row
                "mask_split": (0.85, 0.15, 0.0),  # mask, keep, random
                "whole_word": False,
                "temperature": 1.0,
                "sampler": "gumbel",  # or grouped: the same distribution with less noise
                "disallow_correct": False,
                "uniform_generator": False,
                "generator_weight": 1.0,
                "discriminator_weight": 10.0,  # at 50 the shared embeddings learn little from the generator
            },
            "optim": {
                "name": "adamw",
                "peak_lr": 4e-3,
                "warmup": 200,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.98,  # 0.999 averages over a third of so short a run
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 3_000,
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "budget": "",  # time for training, such as 24h: the learning rate ends with it
                "phases": (),  # stretches on other data or batches: see docs/data.md
                "batch": 32,
                "accumulation": 1,
                "seed": 0,
                "log_every": 100,
                "eval_every": 1_500,
                "eval_batches": 50,
                "checkpoint_every": 1_500,
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
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
