"""The Ray that a job starts for itself."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import os, ray
from pipelines.cluster import connected

with connected(None, slots=1) as is_ours:
    priority = ray.remote(lambda: os.getpriority(os.PRIO_PROCESS, 0))
    print(is_ours, ray.get(priority.remote()), ray.cluster_resources()["CPU"])
"""


def test_its_processes_stand_back_for_nobody_on_the_machine():
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=120, check=True)
    is_ours, niceness, slots = looked.stdout.split()
    assert (is_ours, niceness, slots) == ("True", "0", "6.0"), "two busy processes beside it would else starve the job"
