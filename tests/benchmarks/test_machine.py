from __future__ import annotations

import json
from pathlib import Path

from benchmarks.machine import ROOT, write_result


def test_a_result_does_not_say_in_which_folder_it_was_measured(tmp_path: Path) -> None:
    output = tmp_path / "new" / "result.json"
    write_result(output, "some", {"preloaded": f"libc.so:{ROOT}/.venv-peers/lib/libiomp5.so", "error": f"no {ROOT}/x"})
    assert str(ROOT) not in output.read_text()
    result = json.loads(output.read_text())
    assert result["preloaded"] == "libc.so:.venv-peers/lib/libiomp5.so"
    assert {"benchmark", "command", "commit", "machine", "versions"} <= result.keys()
