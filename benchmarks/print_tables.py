"""Print the tables of README and docs from what was measured: `make tables`. Nobody types a number there.

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


def engines_table(result: dict[str, Any]) -> str:
    """Throughput beside transformers' best batch, where the seconds go, and the share of the machine's limit."""
    peers = [run for run in result["runs"] if "prefill_flops" not in run]
    best = max(peers, key=lambda run: run["images_per_second"]["median"])
    lines = [
        "| engine | images/s | x transformers | encode s | prefill s | decode s | work per image | of the limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_engine_row(run, best, result) for run in result["runs"]),
        "",
        f"*{_where(result)} Median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, "
        f"{result['new_tokens']} new tokens each, random weights in {result['dtype']}; preparing the images is not "
        "counted for either. Work is modelled (encoder and language model); the limit is that work at the rate of "
        f"square matrix products, {result['matmul_flops_per_second']['median'] / 1e9:.0f} GFLOP/s in the same run. "
        f"With all tokens, {result['same_tokens_as_transformers']} of {result['images']} answers are transformers' "
        "token for token.*",
    ]
    return "\n".join(lines)


Table = Callable[[dict[str, Any]], str]
PAGES: dict[str, dict[str, Table]] = {
    "README.md": {"skipping": skipping_table},
    "docs/performance.md": {"engines": engines_table},
}


def printed(text: str, tables: dict[str, Table], results: Path) -> str:
    """`text` with every one of its tables printed anew from the files in `results`."""
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise SystemExit(f"the page must hold {begin} and {end} once each")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        new = table(json.loads((results / f"{name}.json").read_text()))
        text = f"{before}{begin}\n{new}\n{end}{after}"
    return text


def _engine_row(run: dict[str, Any], best: dict[str, Any], result: dict[str, Any]) -> str:
    speed = run["images_per_second"]
    ratio = f"{speed['median'] / best['images_per_second']['median']:.2f}"
    cells = [run["name"], _spread(speed, 2), ratio]
    if "prefill_flops" in run:
        work = (run["prefill_flops"] + run["decode_flops"] + run["encoder_flops"]) / result["images"]
        share = speed["median"] * work / result["matmul_flops_per_second"]["median"]
        cells += [f"{run[f'{stage}_seconds']['median']:.2f}" for stage in ("encode", "prefill", "decode")]
        cells += [f"{work / 1e9:.1f} GFLOP", f"{share:.0%}"]
    else:
        cells += ["", "", "", "", ""]
    return f"| {' | '.join(cells)} |"


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
    rate = result["matmul_flops_per_second"]["median"] / 1e9
    return (
        f"*{_where(result)} Median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, model "
        f"`{result['model']}` in {result['dtype']}, matrix products at {rate:.0f} GFLOP/s in the same run. FLOPs are "
        "modelled (causal count, language model only, all images together). Shapes are right when a caption names "
        "every colour and shape and invents none.*"
    )


def _where(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    commit = (result["commit"] or "none")[:10] + (" with changes" if result["uncommitted_changes"] else "")
    return (
        f"Measured by `{result['command']}` at commit {commit} on {where}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}."
    )


def _spread(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f}–{value['max']:.{digits}f})"


if __name__ == "__main__":
    for page, tables in PAGES.items():
        file = ROOT / page
        file.write_text(printed(file.read_text(), tables, ROOT / "benchmarks" / "results"))
