"""A modern encoder in the size of ELECTRA-Base: rows of 1,024 tokens, batch 128, 766K steps.

    electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 30522 --output tok/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 1024 --output data/
    electra-jax pretrain --config modern-base --workdir run/ --config.data.path=data/

The encoder of `base` with ModernBERT's layers, so every export is one: the same width, depth and size of its matrices.
The generator shares embeddings of the full width and has a quarter of the depth. No dropout, as in ModernBERT
(arXiv:2412.13663), whose rate this is. Rows are twice as long as those of `base` and batches half: as many tokens a
step. Rows of 8,192 in the last tenth: `--config modern-base:data8192/`.

Hardware: a small slice of TPUs or a GPU box.
Result: not yet measured here. 722 million useful FLOPs a token; `base` has 668 in rows of 512, 744 in rows of 1,024.
"""

from ml_collections import ConfigDict


def get_config(long_rows: str = "") -> ConfigDict:
    """130,845,499 parameters with a vocabulary of 30,522; the argument: the data of a last tenth, rows of 8,192."""
    steps = 766_000
    short, long = (
        {"steps": steps - steps // 10},
        {"steps": steps // 10, "path": long_rows, "batch": 16},
    )
    return ConfigDict(
        {
            "model": {
                "family": "modern",
                "layers": 12,
                "width": 768,
                "heads": 12,
                "ffn": 2048,  # with a gate: three matrices, the size of two that are 4 x width wide
                "embedding": 768,
                "positions": 8192,
                "types": 1,
                "generator_size": 1.0,  # the embeddings' width: there is no projection
                "generator_layers": 0.25,
                "tying": "embeddings",
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "embedding_dropout": 0.0,
                "mlp_dropout": 0.0,
                "local_attention": 128,
                "global_attn_every_n_layers": 3,
                "global_rope_theta": 160_000.0,
                "local_rope_theta": 10_000.0,
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
                "name": "muon",
                "peak_lr": 8e-4,
                "warmup": 10_000,
                "lr_power": 1.0,
                "momentum": 0.95,
                "consistent_rms": 0.2,  # steps as large as AdamW's, whose rates and decay fit
                "adam_ratio": 1.0,  # embeddings, norms and last layers at the same rate
                "matrices": "hidden",
                "beta1": 0.9,
                "beta2": 0.98,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": steps,
                "stop_at": 0,  # end this start here, to go on later; 0: at the last step
                "budget": "",  # time for training, such as 24h: the learning rate ends with it
                "phases": (short, long) if long_rows else (),  # see docs/data.md
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
