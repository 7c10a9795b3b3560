"""Array functions that have, or may get, a version per platform: noise, attention, the vocabulary head."""
