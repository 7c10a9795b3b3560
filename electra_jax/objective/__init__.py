"""What is learned: one file per objective behind the protocol of `protocol.py`; a new objective is a new file."""
