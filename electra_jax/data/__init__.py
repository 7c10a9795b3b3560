"""Token ids to batches: fixed-length rows on disk, which of them make up a step, and their way to
the devices.
"""
