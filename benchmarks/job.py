"""A whole job beside its engine alone: what of a device's speed is left when a job has fed it from files.

`python -m benchmarks.job --help`. A checkpoint of a published shape with random weights and JPEG photos are written to
a folder. For each setting the engine first answers the photos from memory, decoded and prepared; then `skipvision run`
answers them from the folder: reads, decodes and prepares them in Ray's tasks, loads the model, and commits every row.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.gpu import SHAPES, release, timed
from benchmarks.machine import ROOT, dtype_name, spread, versions_of, write_result
from benchmarks.photographs import photo
from benchmarks.random_llava import random_family
from benchmarks.work import PROMPT
from skipvision.engine import Engine, Request, Sampling
from skipvision.families import load_family
from skipvision.method.plan import SkipConfig

RESULT = ROOT / "benchmarks" / "results" / "job.json"
WIDTH, HEIGHT = 640, 480


def measure(
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "7b",
    device: Annotated[str, typer.Option(help="cuda; or cpu, to try the script.")] = "cuda",
    images: Annotated[int, typer.Option(min=4)] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Of the engine alone; a job is one round.")] = 2,
    new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    running: Annotated[int, typer.Option(min=1, help="Rows that an engine works on at the same time.")] = 128,
    setting: Annotated[list[str], typer.Option(help="Of skipping; once or more.")] = ["off", "100/156"],  # noqa: B006
    folder: Annotated[Path | None, typer.Option(help="Where checkpoint and photos go; memory, if it is large.")] = None,
    output: Annotated[Path, typer.Option(help="Where the JSON goes; written again after every setting.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    where = torch.device(device)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    result: dict[str, Any] = {
        "shape": shape, "dtype": dtype_name(dtype), "images": images, "image_size": [WIDTH, HEIGHT], "rounds": rounds,
        "new_tokens": new_tokens, "running": running, "packages": versions_of("ray", "pyarrow", "pillow"),
        "settings": [],
    }  # fmt: skip
    with TemporaryDirectory(dir=folder) as scratch:
        checkpoint, photos = Path(scratch, "checkpoint"), Path(scratch, "photos")
        random_family(checkpoint, SHAPES[shape].config(), device=where, dtype=dtype).model.save_pretrained(checkpoint)
        release(where)
        pictures = _save_photos(photos, images)
        alone = engine_alone(checkpoint, pictures, setting, where, dtype, rounds, new_tokens, running)
        release(where)
        for each in setting:
            config = {
                "input": str(photos), "output": str(Path(scratch, each.replace("/", "-"))), "prompt": PROMPT,
                "model": str(checkpoint), "skip": each, "max_tokens": new_tokens, "max_running": running,
                "rows_per_shard": max(1, running // 2), "device": device, "dtype": dtype_name(dtype),
                "compared_share": 0.0,
            }  # fmt: skip
            result["settings"].append({"skip": each, "engine_alone": alone[each], "job": whole_job(config)})
            write_result(output, "job", result)


def engine_alone(
    checkpoint: Path, pictures: Sequence[np.ndarray], settings: Sequence[str], device: torch.device,
    dtype: torch.dtype, rounds: int, new_tokens: int, running: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Images a second of prepared images in memory, by setting."""
    family = load_family(checkpoint, device=str(device), dtype=dtype_name(dtype))
    engine = Engine(family, max_running=running, vision_cache_bytes=0)
    prepared = [engine.prepare(picture) for picture in pictures]

    def requests(setting: str) -> list[Request]:
        skip, sampling = SkipConfig.parse(setting), Sampling(max_tokens=new_tokens)
        return [Request(prompt=PROMPT, images=(image,), skip=skip, sampling=sampling) for image in prepared]

    found = {}
    for setting in settings:
        engine.answer(requests(setting)[: max(2, running // 4)])  # warm up: kernels are chosen and compiled by size
        seconds = [timed(lambda: engine.answer(requests(setting))) for _ in range(rounds)]  # noqa: B023
        found[setting] = {"images_per_second": spread([len(pictures) / each for each in seconds])}
    engine.close()
    return found


def whole_job(config: dict[str, Any]) -> dict[str, Any]:
    """Run a job as the command line does, in a process of its own; what its report says."""
    file = Path(config["output"]).with_suffix(".yaml")
    file.write_text(json.dumps(config))  # which is YAML
    started = perf_counter()
    subprocess.run([sys.executable, "-m", "skipvision.cli", "run", str(file)], check=True, stdout=sys.stderr)
    seconds = perf_counter() - started
    report = json.loads(Path(config["output"], "report.json").read_text())
    return {
        "command_seconds": seconds,
        "wall_seconds": report["wall_seconds"],
        "ok": report["ok"],
        "errors_by_code": report["errors_by_code"],
        "output_tokens": report["tokens"]["output"],
        "first_commit_seconds": next((seconds for seconds, rows in report["timeline"] if rows), None),
        "images_per_second_once_running": once_running(report["timeline"]),
        "devices": report["devices"],
        "stage_seconds": report["stage_seconds"],
    }


def once_running(timeline: Sequence[tuple[float, int]]) -> float | None:
    """Rows a second from the first commit to the last, the start of Ray and the model left out.

    None: there are too few commits.
    """
    commits = [(later, rows) for (_, before), (later, rows) in pairwise([(0.0, 0), *timeline]) if rows > before]
    if len(commits) < 2 or commits[-1][0] <= commits[0][0]:
        return None
    (first, rows), (last, all_rows) = commits[0], commits[-1]
    return (all_rows - rows) / (last - first)


def _save_photos(folder: Path, count: int) -> list[np.ndarray]:
    """JPEGs of one photo turned about itself, so that no two are the same; the pixels that they hold."""
    folder.mkdir()
    one, pixels = np.asarray(photo(WIDTH, HEIGHT)), []
    for number in range(count):
        turned = np.roll(one, (7 * number % HEIGHT, 13 * number % WIDTH), axis=(0, 1))
        encoded = BytesIO()
        Image.fromarray(turned).save(encoded, "JPEG", quality=90)
        (folder / f"{number:05}.jpg").write_bytes(encoded.getvalue())
        pixels.append(np.asarray(Image.open(encoded)))
    return pixels


if __name__ == "__main__":
    typer.run(measure)
