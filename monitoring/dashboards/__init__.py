"""The dashboards as code, one file a board; `python -m monitoring.dashboards` writes what Grafana reads."""

from pathlib import Path

GENERATED = Path(__file__).parent / "generated"
"""Where the boards stand as JSON, each under its uid."""
