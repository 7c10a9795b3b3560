"""Token ids to batches: rows of fixed length on disk, which of them make up a step, and their way to the devices."""
