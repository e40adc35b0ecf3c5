"""The process of an engine: answers one request after another, and sleeps in between."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from importlib import import_module
from typing import Any, BinaryIO


def main() -> None:
    """Serve the class that the command line names, ``module:Class``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an engine prints is no reply
    serve(sys.argv[1], sys.stdin.buffer, replies)


def serve(name: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more.

    Parameters
    ----------
    name : str
        ``module:Class``.
    requests : binary file
        Pickled (method, arguments); the method "build" makes a new object of the class.
    replies : binary file
        Pickled (whether it went well, the result or what went wrong).
    """
    served: Any = None
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            if method == "build":
                served = None  # frees what the one before it needed
                module, _, attribute = name.partition(":")
                served = getattr(import_module(module), attribute)(*arguments)
                reply = (True, served.version)
            else:
                reply = (True, getattr(served, method)(*arguments))
        except Exception as error:
            reply = (False, f"{type(error).__name__}: {' '.join(str(error).split())}")
        pickle.dump(reply, replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()


if __name__ == "__main__":
    main()
