"""A worker process of Beam on this machine: without Beam's log on the terminal, and gone when its parent is."""

import logging
import os
import signal
import sys
import threading
import time


def main() -> None:
    """What is run by `python -m`, with the environment that Beam gives a worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is all the parallelism there is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and stops the workers
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    # Where there is a handler, Beam adds none that writes to the terminal; what matters goes to the parent.
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _leave_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone, killed included: its work would go on for minutes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
