"""The tasks that are known by name, and how their published files are laid out."""
