"""Print the tables of README and docs from what was measured: `make tables`. Nobody types a number there.

Each table stands between two comments, `<!-- table: NAME -->` and `<!-- end of table: NAME -->`, and is made from a
file of `benchmarks/results/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from benchmarks import tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Source(NamedTuple):
    """Where a table comes from."""

    result: str
    """The name of the JSON file."""
    table: tables.Table


PAGES: dict[str, dict[str, Source]] = {
    "README.md": {"skipping": Source("skipping", tables.skipping), "gpu-7b": Source("gpu-7b", tables.gpu)},
    "docs/performance.md": {
        "engines": Source("engines", tables.engines),
        "limits": Source("engines", tables.limits),
        "stages": Source("engines", tables.stages),
        "latency": Source("latency", tables.latency),
        "sweep": Source("sweep", tables.sweep),
        "memory": Source("memory", tables.memory),
        "gpu-7b": Source("gpu-7b", tables.gpu),
        "gpu-hd": Source("gpu-hd", tables.gpu),
        "job": Source("job", tables.job),
        "decoding": Source("decoding", tables.decoding),
    },
    "docs/evaluation.md": {"quality": Source("quality", tables.quality)},
    "docs/reliability.md": {
        "faults": Source("faults", tables.faults),
        "checkpointing": Source("faults", tables.checkpointing),
        "resume": Source("resume", tables.resume),
    },
    "docs/fetching.md": {"urls": Source("urls", tables.urls)},
    "docs/rows.md": {"questions": Source("questions", tables.questions)},
    "docs/fuzzing.md": {"fuzz": Source("fuzz", tables.fuzz)},
    "docs/serving.md": {"service": Source("service", tables.service)},
    "docs/training.md": {
        "training": Source("training", tables.training),
        "training-gpu": Source("training-gpu", tables.training),
    },
    "docs/decisions/0010-decoding-on-a-cpu.md": {"kernels": Source("kernels", tables.kernels)},
}


def printed(text: str, sources: dict[str, Source], results: Path) -> str:
    """`text` with every one of its tables printed anew from the files in `results`."""
    for name, source in sources.items():
        begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise SystemExit(f"the page must hold {begin} and {end} once each")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        new = source.table(json.loads((results / f"{source.result}.json").read_text()))
        text = f"{before}{begin}\n{new}\n{end}{after}"
    return text


if __name__ == "__main__":
    for page, sources in PAGES.items():
        file = ROOT / page
        file.write_text(printed(file.read_text(), sources, RESULTS))
    print(tables.absent_peers(json.loads((RESULTS / "engines.json").read_text())))
