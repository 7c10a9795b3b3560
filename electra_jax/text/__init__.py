"""Words to token ids: corpora of documents, tokenizers, and the training of vocabularies."""
