"""The answering side: calls come in as lines of JSON, results go out as lines of JSON.

Needs the standard library alone, so that it runs in a peer's own environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback


def serve(worker: object) -> None:
    """Answer calls of `worker`'s methods from standard input, in order, until it ends.

    A call is `{"do": METHOD, "with": ARGUMENTS}`; its reply `{"returned": VALUE}`, or `{"failed": REASON}`, after which
    the next call is read. Between calls the process sleeps. Whatever else is printed goes to standard error.
    """
    # Under nohup it would be ignored, here and in every child, and it is how the kernel ends a group that nobody asks.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        call = json.loads(line)
        try:
            reply = {"returned": getattr(worker, call["do"])(**call["with"])}
        except Exception as error:
            traceback.print_exc()
            reply = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
