"""A worker that does what the tests of the protocol need, run as `python -m tests.benchmarks.parrot`."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.workers.serve import serve


class Parrot:
    """Repeats, prints, fails, dawdles, has a child, and leaves."""

    def repeat(self, *, word: str) -> str:
        print("this goes to the log", word)
        subprocess.run(["echo", "and this of a child too"], check=True)
        return word

    def fail(self) -> None:
        raise ValueError("no such seed")

    def leave(self) -> None:
        print("the cage is open", file=sys.stderr, flush=True)
        sys.exit(3)

    def dawdle(self) -> None:
        time.sleep(60)

    def breed(self) -> int:
        """The process id of a child that never ends."""
        self.child = subprocess.Popen(["sleep", "600"])
        return self.child.pid


if __name__ == "__main__":
    serve(Parrot())
