"""The command `idenctl`, also `python -m idenctl`."""

import signal

# Ctrl-C while all is loaded ends it without a traceback; what a shell runs in the background ignores it
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from orchestrator.cli.app import main

if __name__ == "__main__":
    main()
