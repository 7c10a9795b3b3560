"""Raw text to a prepared folder: the corpus, its held-out part, copies removed, rows dealt to processes and written."""
