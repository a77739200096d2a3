"""One target in a process of its own: `python -m fuzz.harness TARGET CORPUS SECONDS`, with libFuzzer's words on stderr.

What takes more than `MAX_SECONDS` of this process's own time is a finding too; waiting for the machine is not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import atheris

MAX_SECONDS = 5.0
HUNG_SECONDS = 120
MAX_MEBIBYTES = 4096

# What is imported in here tells libFuzzer which of its branches an input took.
with atheris.instrument_imports(include=["skipvision", "pipelines", "yarl", "PIL", "email"]):
    from fuzz.seeds import seeds
    from fuzz.targets import TARGETS


def main(target: str, corpus: Path, seconds: int) -> None:
    """Fuzz until the time is over or something is found; libFuzzer ends the process."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    run = TARGETS[target]

    def timed(data: bytes) -> None:
        started = time.process_time()
        run(data)
        spent = time.process_time() - started
        if spent > MAX_SECONDS:
            raise AssertionError(f"{spent:.1f} s for {len(data)} bytes")

    limits = [f"-max_total_time={seconds}", f"-timeout={HUNG_SECONDS}", f"-rss_limit_mb={MAX_MEBIBYTES}"]
    says = [f"-artifact_prefix={corpus.parent}/{target}-", "-print_final_stats=1", "-max_len=65536", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *limits, *says, str(corpus)], timed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
