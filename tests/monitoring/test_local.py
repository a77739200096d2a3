"""What `make monitor` starts beside the work: Grafana where it is installed, told where numbers and boards are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from monitoring.expressions import read_boards
from monitoring.local import boards, free_ports
from monitoring.stack import program
from skipvision.errors import ConfigError

STAND_IN = f"""#!{sys.executable}
import http.server, os, pathlib
pathlib.Path(os.environ["GF_PATHS_PROVISIONING"], "seen").write_text(os.environ["GF_SERVER_HTTP_PORT"])

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

at = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(at, Answer).serve_forever()
"""


def test_grafana_is_told_where_numbers_and_boards_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for it, since no package here brings it: that Grafana reads these files so is not shown."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "grafana-server").write_text(STAND_IN)
    (tmp_path / "bin" / "grafana-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    [port] = free_ports(1)
    with boards(tmp_path, port, 9090) as has_grafana:
        assert has_grafana
        assert (tmp_path / "grafana" / "seen").read_text() == str(port)
    told = {path.parent.name: yaml.safe_load(path.read_text()) for path in (tmp_path / "grafana").glob("*/*.yaml")}
    assert told["datasources"]["datasources"][0]["url"] == "http://127.0.0.1:9090"
    folder = Path(told["dashboards"]["providers"][0]["options"]["path"])
    assert len(list(folder.glob("*.json"))) == len(read_boards()) == 6


def test_without_grafana_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with boards(tmp_path, 1, 9090) as has_grafana:
        assert not has_grafana


def test_what_is_not_installed_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="prometheus is not installed; on Debian: apt-get install prometheus"):
        program("prometheus")
