"""Jobs on a cluster with GPUs, as far as Ray is concerned: it is told of two that are not there."""

from __future__ import annotations

import json
import subprocess
import sys

from skipvision.scenes import scene

RUN = """
import sys, threading, time
import ray
from pipelines.job import run
from skipvision.config import JobConfig

ray.init("local", num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False)
least, done = 2.0, threading.Event()

def look():
    global least
    while not done.wait(0.05):
        least = min(least, ray.available_resources().get("GPU", 0))

looking = threading.Thread(target=look, daemon=True)
looking.start()
run(JobConfig(input=sys.argv[1], output=sys.argv[2], model=sys.argv[3], max_tokens=4, rows_per_shard=2))
done.set()
looking.join()
print("GPUs left:", least)
"""


def test_each_engine_has_a_gpu_to_itself_and_every_row_is_answered(tiny_model, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(9):
        scene(number).render(32).save(tmp_path / "images" / f"{number}.png")
    command = [sys.executable, "-c", RUN, tmp_path / "images", tmp_path / "answers", tiny_model]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert "GPUs left: 0" in ran.stdout, "one engine for each GPU, unless the job says otherwise"
    report = json.loads((tmp_path / "answers" / "report.json").read_text())
    assert (report["rows"], report["ok"]) == (9, 9)
