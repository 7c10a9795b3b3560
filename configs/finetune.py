r"""Fine-tuning with the paper's settings (Table 7), for any task: the part after the colon names it.

    electra-jax finetune --config configs/finetune.py:sst2 --init hf/discriminator --data-dir glue/ --workdir ft/
    electra-jax finetune --config configs/finetune.py:classify --train my.tsv --dev my_dev.tsv --text sentence \
        --label label --init run/ --workdir ft/

Several tasks share an encoder: configs/finetune.py:mrpc,stsb. Learning rate, its layer-wise decay, and the epochs are
None here and come from the encoder's width and the task: 3e-4 (small), 1e-4 (base), 5e-5 (large); 0.8, large 0.9;
10 epochs for RTE and STS, 2 for question answering, 3 for the others.
Result: not yet measured.
"""

from ml_collections import ConfigDict


def get_config(tasks: str = "") -> ConfigDict:
    """Settings for these tasks, names separated by commas."""
    return ConfigDict(
        {
            "init": "",  # a workdir, a Hugging Face folder, or random
            "tasks": tuple(name.strip() for name in tasks.split(",") if name.strip()),
            "data": {
                "dir": "",  # the official layouts
                "train": "",  # files of your own
                "dev": "",
                "test": "",
                "tokenizer": "",  # of a random encoder
                "max_len": 0,  # 0: the task's
                "doc_stride": 128,
                "max_question": 64,
                "carry_on": False,
                "both_orders": True,
                # Columns of your own files; None: the usual names.
                "text": None,
                "pair": None,
                "label": None,
                "id": None,
                "labels": None,
                "score_range": None,
                "words": None,
                "tags": None,
                "tag_names": None,  # of tags that are numbers: O,B-PER,...
                "scheme": "iob2",  # None: plain tags, such as parts of speech
                "question": None,
                "context": None,
                "answer": None,
                "answer_start": None,
                "choices": None,
                "positive": None,
                "negative": None,
            },
            # The dimensions are those of a random encoder; a pretrained one has its own.
            "model": {
                "layers": 12,
                "width": 256,
                "heads": 4,
                "ffn": 1024,
                "embedding": 128,
                "positions": 512,
                "types": 2,
                "init_std": 0.02,
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "dtype": "float32",
                "residual_dtype": "float32",
                "remat": "none",
            },
            "head": {
                "style": "hf",  # hf: exports to transformers | original
                "dropout": 0.1,
                "joint": True,
                "answerable": True,
                "answerable_weight": 0.5,
                "beam": 20,
            },
            "optim": {
                "name": "adam",  # the original's: no bias correction
                "peak_lr": None,
                "layer_decay": None,
                "layer_decay_off_by_one": False,
                "warmup": 0.1,
                "lr_power": 1.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
                "frozen_layers": 0,
            },
            "train": {
                "epochs": None,
                "batch": 32,
                "accumulation": 0,  # micro-batches; 0: chosen
                "seed": 0,
                "seeds": 1,
                "sweep": (),
                "together": "auto",
                "buckets": 12,  # lengths of rows, at most
                "reduction": "mean",
                "select": "last",  # as in the paper; best: the best epoch on dev
                "patience": 0,
                "examples": 0,  # 0: all
                "task_power": 0.75,
                "log_every": 50,
                "checkpoint_every": 500,
                "max_skipped": 10,
            },
            "eval": {"batch": 64},
            "mesh": {"data": -1, "fsdp": 1},
            "report": {"tensorboard": True, "wandb": ""},
        }
    )
