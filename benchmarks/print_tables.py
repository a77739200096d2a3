"""Print the README's table from what was measured: `make tables`. Nobody types a number there.

Each table stands between two comments, `<!-- table: NAME -->` and `<!-- end of table: NAME -->`, and is made from
`benchmarks/results/NAME.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def skipping_table(result: dict[str, Any]) -> str:
    """Speed, cost and agreement under each setting, with the circumstances below."""
    baseline = result["settings"][0]
    lines = [
        "| setting | images/s | prefill s | decode s | prefill FLOPs | KV per image | shapes right | same answer |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(setting, baseline, result["images"]) for setting in result["settings"]),
        "",
        _caption(result),
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"skipping": skipping_table}


def printed(text: str, results: Path) -> str:
    """`text` with every table in it printed anew from the files in `results`."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise SystemExit(f"the page must hold {begin} and {end} once each")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        new = table(json.loads((results / f"{name}.json").read_text()))
        text = f"{before}{begin}\n{new}\n{end}{after}"
    return text


def _row(setting: dict[str, Any], baseline: dict[str, Any], images: int) -> str:
    is_baseline = setting is baseline
    name = "all tokens" if is_baseline else f"skipping, `{setting['skip']}`"
    same = "–" if is_baseline else f"{setting['same_answer_as_all_tokens']} of {images}"
    ratio = setting["prefill_flops"] / baseline["prefill_flops"]
    cells = (
        name,
        _spread(setting["images_per_second"], 1),
        _spread(setting["prefill_seconds"], 2),
        _spread(setting["decode_seconds"], 2),
        f"{setting['prefill_flops'] / 1e9:.1f} G ({ratio:.0%})",
        f"{setting['kv_bytes'] / images / 1024:.0f} KiB",
        f"{setting['shapes_right'] / images:.1%}",
        same,
    )
    return f"| {' | '.join(cells)} |"


def _caption(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    commit = (result["commit"] or "none")[:10] + (" with changes" if result["uncommitted_changes"] else "")
    rate = result["matmul_flops_per_second"]["median"] / 1e9
    return (
        f"*Measured: median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, model "
        f"`{result['model']}` in {result['dtype']}, {where}, torch {versions['torch']}, matrix products at {rate:.0f} "
        f"GFLOP/s in the same run, commit {commit}, `{result['command']}`. FLOPs are modelled "
        f"(causal count, language model only, all images together). Shapes are right when a caption names every colour "
        "and shape and invents none.*"
    )


def _spread(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f}–{value['max']:.{digits}f})"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(printed(readme.read_text(), ROOT / "benchmarks" / "results"))
