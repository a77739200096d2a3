"""A worker that does what the tests of workers and trials need, run as `python -m tests.benchmarks.parrot`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

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

    def load(self, *, folder: str, dtype: str) -> dict[str, Any]:
        if os.environ["PARROT_SECONDS"] == "never":
            raise MemoryError("the cage is too small")
        return {"threads": 1, "versions": {"parrot": "1"}}

    def answer_all(self, *, work: dict[str, Any]) -> dict[str, Any]:
        """As if it had taken as many seconds as the environment says; each answer is its request's number."""
        numbers = range(work["first"], work["first"] + work["requests"])
        return {"seconds": float(os.environ["PARROT_SECONDS"]), "output_ids": [[number] for number in numbers]}


if __name__ == "__main__":
    serve(Parrot())
