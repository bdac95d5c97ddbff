"""The command ``headstart``, and ``python -m headstart``."""

import os
import signal

BLAS = "OPENBLAS_NUM_THREADS"
ITS_THREADS = (BLAS, "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # what OpenBLAS reads when it is loaded


def main() -> None:
    """Run the command line. Ctrl-C while its modules are imported ends the process: there is nothing to undo."""
    if not any(os.environ.get(name) for name in ITS_THREADS):
        # Each core has a thread of ours, see `data/threads.py`; those that OpenBLAS starts when it is loaded would take
        # turns with them. Where more are of use, as in a factorisation, they are asked for there.
        os.environ[BLAS] = "1"
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so of a job in the background
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from headstart.cli.app import main as run
    from headstart.cli.process_end import end_at_once

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except SystemExit as end:
        if isinstance(end.code, int):
            end_at_once(end.code)
        raise


if __name__ == "__main__":
    main()
