"""The protocol buffers of a SentencePiece model, as far as we read and write them.

The sentencepiece package's own classes (sentencepiece_model_pb2) only load with a protobuf at least as new as the one
that generated them, which other packages forbid (apache-beam among them). Fields not listed here pass through unread.
Numbers and defaults are those of sentencepiece_model.proto; an enumeration is an integer on the wire.
"""

import functools
from typing import Any

_PACKAGE = "electra_jax.sentencepiece"
# message -> field, number, type, default ("" for none; a message's name for a message)
_FIELDS = {
    "Piece": (("piece", 1, "STRING", ""), ("score", 2, "FLOAT", ""), ("type", 3, "INT32", "1")),
    "TrainerSpec": (
        ("model_type", 3, "INT32", "1"),
        ("split_by_whitespace", 22, "BOOL", "true"),
        ("treat_whitespace_as_suffix", 24, "BOOL", "false"),
        ("byte_fallback", 35, "BOOL", "false"),
        ("unk_id", 40, "INT32", "0"),
        ("unk_piece", 45, "STRING", "<unk>"),
    ),
    "NormalizerSpec": (
        ("name", 1, "STRING", ""),
        ("precompiled_charsmap", 2, "BYTES", ""),
        ("add_dummy_prefix", 3, "BOOL", "true"),
        ("remove_extra_whitespaces", 4, "BOOL", "true"),
        ("escape_whitespaces", 5, "BOOL", "true"),
        ("normalization_rule_tsv", 6, "STRING", ""),
    ),
    "Model": (
        ("pieces", 1, "MESSAGE", "Piece"),
        ("trainer_spec", 2, "MESSAGE", "TrainerSpec"),
        ("normalizer_spec", 3, "MESSAGE", "NormalizerSpec"),
    ),
}


@functools.cache
def model_class() -> Any:
    """The class of a whole model: `pieces` (piece, score, type), `trainer_spec`, `normalizer_spec`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="electra_jax/sentencepiece.proto", package=_PACKAGE, syntax="proto2"
    )
    kinds: Any = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        entry = file.message_type.add(name=message)
        for name, number, kind, value in fields:
            field = entry.field.add(
                name=name, number=number, type=getattr(kinds, f"TYPE_{kind}"), label=1
            )
            if kind == "MESSAGE":
                field.type_name = f".{_PACKAGE}.{value}"
            elif value:
                field.default_value = value
            if name == "pieces":
                field.label = kinds.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))
