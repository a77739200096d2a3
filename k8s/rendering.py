"""What kustomize makes of the manifests: committed in `rendered/`, and made again wherever there is a kubectl.

`python -m k8s.rendering` writes it, and the PrometheusRule before it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
RULES = (ROOT / "monitoring" / "rules" / "recording.yml", ROOT / "monitoring" / "rules" / "alerts.yml")
PROMETHEUS_RULE = HERE / "monitoring" / "prometheus-rule.yaml"

OLDEST_KUBECTL = (1, 30)
"""Its kustomize is 5.0.4. Older ones render components and replacements differently."""

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What is applied at once, by `kubectl apply -k`."""

    name: str
    folder: Path
    is_overlay: bool
    """Whether it is a whole deployment, rather than what stands beside one."""

    @property
    def committed(self) -> Path:
        """Its rendering."""
        return HERE / "rendered" / f"{self.name}.yaml"

    def manifests(self) -> list[Manifest]:
        """The objects of the committed rendering."""
        return read(self.committed.read_text())


UNITS = (
    *(Unit(name=name, folder=HERE / "overlays" / name, is_overlay=True) for name in ("cpu-dev", "gpu", "spot")),
    *(Unit(name=name, folder=HERE / name, is_overlay=False) for name in ("cluster", "monitoring")),
)


def read(text: str) -> list[Manifest]:
    """The objects in YAML, as plain values."""
    return [document for document in yaml.load_all(text, Loader) if document]


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a key that stands twice is refused, and `=` is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, f"of {keys} one stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _as_it_stands(loader: yaml.SafeLoader, node: Any) -> Any:
    return loader.construct_scalar(node)


Loader.add_constructor("tag:yaml.org,2002:value", _as_it_stands)


@lru_cache(maxsize=1)
def kubectl() -> str | None:
    """A kubectl that is new enough. None: there is none."""
    program = shutil.which("kubectl")
    if program is None:
        return None
    told = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, text=True)
    if told.returncode:
        return None
    version = json.loads(told.stdout)["clientVersion"]
    number = int(version["major"]), int(version["minor"].rstrip("+"))
    return program if number >= OLDEST_KUBECTL else None


def render(folder: Path, program: str) -> str:
    """What kubectl makes of a folder with a kustomization; nothing is asked of any cluster.

    Raises:
        RuntimeError: with what it says against the folder.
    """
    built = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True)
    if built.returncode:
        raise RuntimeError(f"{folder} cannot be rendered: {built.stderr.strip()}")
    return built.stdout


def prometheus_rule() -> str:
    """Rules and alerts of `monitoring/` as the Prometheus operator takes them."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "skipvision"},
        "spec": {"groups": groups},
    }
    said = "# Made from monitoring/rules by `make k8s-rendered`.\n"
    return said + yaml.dump(rule, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay what they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def main() -> int:
    """Write what is generated."""
    program = kubectl()
    if program is None:
        print("k8s.rendering needs kubectl 1.30 or newer, and there is none", file=sys.stderr)
        return 2
    PROMETHEUS_RULE.write_text(prometheus_rule())
    for unit in UNITS:
        unit.committed.write_text(render(unit.folder, program))
    return 0


if __name__ == "__main__":
    sys.exit(main())
