"""Raw text, from files of every kind to documents."""
