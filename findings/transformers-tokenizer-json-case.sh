#!/usr/bin/env bash
# transformers 5: which of two files decides about lower case depends on `tokenizer_class`.
#
# Seen with transformers 5.24.0 (2026-11-28): a folder whose tokenizer.json keeps case, beside a tokenizer_config.json
# without `do_lower_case`, gives
#   tokenizer_class ElectraTokenizer         "Ab" -> [UNK]: the class overwrites the normalizer, a missing key means lower case
#   tokenizer_class PreTrainedTokenizerFast  "Ab" -> Ab: tokenizer.json as it is
# so a cased vocabulary loses its case by naming the class that its model has. This script fails when that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/env"
"$home/env/bin/pip" install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cd "$home"
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
"$home/env/bin/python" - <<'PY'
import json
import os

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Ab", "x"]
model = models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
fast = Tokenizer(model)
fast.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
found = {}
for name in ("ElectraTokenizer", "PreTrainedTokenizerFast"):
    os.mkdir(name)
    fast.save(f"{name}/tokenizer.json")
    with open(f"{name}/vocab.txt", "w") as f:
        f.write("\n".join(words) + "\n")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    with open(f"{name}/tokenizer_config.json", "w") as f:
        json.dump({"tokenizer_class": name} | special, f)
    found[name] = AutoTokenizer.from_pretrained(name).tokenize("Ab x")
    print(name, found[name])
expected = {"ElectraTokenizer": ["[UNK]", "x"], "PreTrainedTokenizerFast": ["Ab", "x"]}
if found != expected:
    raise SystemExit("changed")
print("as seen")
PY
