"""The command ``headstart``, and ``python -m headstart``."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while its modules are imported ends the process: there is nothing to undo."""
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
