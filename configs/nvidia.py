"""NVIDIA's two-phase recipe for ELECTRA-Base: LAMB, 10,000 steps at length 128, then 930 at length 512.

    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data128/
    electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 512 --output data512/
    electra-jax pretrain --config nvidia:data512/ --workdir run/ --config.data.path=data128/

Numbers as published in NVIDIA/DeepLearningExamples (TensorFlow2/LanguageModeling/ELECTRA, TF 20.07): 67,584 rows a
step, then 27,648, about 100 billion tokens; 30 hours on 8 A100, 1.1 on 384. Accumulation is theirs for 8 GPUs.

Hardware: a GPU box or a slice of TPUs.
Result: not yet measured here.
"""

from ml_collections import ConfigDict


def get_config(long_rows: str = "data512/") -> ConfigDict:
    """ELECTRA-Base under LAMB; the argument is the folder of the second phase, rows of 512 tokens."""
    return ConfigDict(
        {
            "model": {
                "layers": 12,
                "width": 768,
                "heads": 12,
                "ffn": 3072,
                "embedding": 768,
                "positions": 512,
                "types": 2,
                "generator_size": 1 / 3,
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
                "name": "lamb",
                "peak_lr": 6e-3,
                "warmup": 2_000,
                "lr_power": 0.5,
                "beta1": 0.878,
                "beta2": 0.974,
                "eps": 1e-6,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 10_930,
                "batch": 67_584,
                "accumulation": 48,
                "phases": (
                    {"steps": 10_000, "peak_lr": 6e-3, "warmup": 2_000},
                    {
                        "steps": 930,
                        "path": long_rows,
                        "batch": 27_648,
                        "accumulation": 144,
                        "peak_lr": 4e-3,
                        "warmup": 200,
                    },
                ),
                "seed": 0,
                "log_every": 10,
                "eval_every": 500,
                "eval_batches": 1,
                "checkpoint_every": 100,
                "keep_last": 5,
                "keep_every": 0,
                "max_skipped": 10,
                "average": 0.0,  # decay of an average of the weights, such as 0.999; 0: none
                "stop_at": 0,
                "budget": "",
            },
            "data": {
                "path": "",
                "window": 0,  # shards mixed at a time, for data too large for local disk; 0: all
            },
            "mesh": {"data": -1, "fsdp": -1, "deterministic": False},  # -1, -1: chosen by memory
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
