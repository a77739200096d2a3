"""Whether an object is one that Kubernetes would take: every field known and of the right kind.

Kubernetes' own kinds, and Pod templates inside others, are held against the schemas of the oldest and the newest
Kubernetes that the manifests are for. Custom resources are held against the definitions that their operators ship, in
the folder that SKIPVISION_CRD_DIR names, with the rules in CEL that stand in them; without, against `compact.yaml`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import cel
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from k8s.rendering import HERE, Loader, Manifest

VERSIONS = ("1.30.0", "1.37.0")
"""Of Kubernetes, the oldest and the newest that objects are held against."""

CRD_DIR = "SKIPVISION_CRD_DIR"

CORE_GROUP = re.compile(r"(v1|[a-z]+/v\w+|[a-z.]+\.k8s\.io/v\w+)")
"""Of Kubernetes' own kinds; some operators' groups end with k8s.io too, and are looked for first."""

WORDS: Mapping[str, Mapping[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "quantity": {"type": ["integer", "string"]},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "pod": {"type": "object"},
    "resources": {"type": "object"},
    "container security": {"type": "object"},
    "metadata": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}


class Schemas(Protocol):
    """Schemas of custom resources."""

    name: str
    """What the counts call them."""

    def problems(self, manifest: Manifest) -> list[str] | None:
        """What is wrong with the object. None: they do not know its kind."""
        ...


def schemas() -> Schemas:
    """The best that are at hand."""
    folder = os.environ.get(CRD_DIR)
    return Shipped(Path(folder)) if folder else Compact()


def problems(manifest: Manifest, custom: Schemas) -> list[str]:
    """What is wrong with an object; of a kind that no schema knows, that."""
    found = custom.problems(manifest)
    if found is not None:
        return found + [problem for part in core_parts(manifest) for problem in core_problems(*part)]
    if not CORE_GROUP.fullmatch(manifest["apiVersion"]):
        return [f"no schema knows {kind_of(manifest)}"]
    return core_problems("", manifest)


def kind_of(manifest: Manifest) -> str:
    """`apiVersion/kind`."""
    return f"{manifest.get('apiVersion')}/{manifest.get('kind')}"


def core_parts(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Place and content of what a custom resource holds of Kubernetes' own: its metadata, and Pod templates."""
    yield "", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest.get("metadata")}
    spec = manifest.get("spec", {})
    for field in ("rayClusterConfig", "rayClusterSpec"):
        cluster = spec.get(field, {})
        groups = [(f"spec.{field}.headGroupSpec", cluster.get("headGroupSpec", {}))]
        groups += [
            (f"spec.{field}.workerGroupSpecs.{number}", group)
            for number, group in enumerate(cluster.get("workerGroupSpecs", ()))
        ]
        for place, group in groups:
            if isinstance(group.get("template"), dict):
                template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
                yield f"{place}.", template | {"template": group["template"]}
        if options := cluster.get("autoscalerOptions"):
            taken = {name: options[name] for name in ("resources", "securityContext") if name in options}
            pod = {"containers": [{"name": "autoscaler", "image": "x", **taken}]}
            yield (
                f"spec.{field}.autoscalerOptions.",
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod},
            )


def core_problems(place: str, manifest: Manifest) -> list[str]:
    """What Kubernetes' own schemas have against an object."""
    found: dict[str, None] = {}
    for version in VERSIONS:
        validator = _core(version, manifest["apiVersion"], manifest["kind"])
        if validator is None:
            return [f"no schema of Kubernetes {version} knows {kind_of(manifest)}"]
        found |= dict.fromkeys(_told(validator, manifest, place))
    return list(found)


@cache
def _core(version: str, api_version: str, kind: str) -> Draft202012Validator | None:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = _core_folder(version) / f"{kind.lower()}-{group}.json"
    if not path.is_file():
        return None
    return Draft202012Validator(json.loads(path.read_text()), registry=_core_definitions(version))


def _core_folder(version: str) -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"


@cache
def _core_definitions(version: str) -> Registry[Any]:
    folder = _core_folder(version)
    content = json.loads((folder / "_definitions.json").read_text())
    resource = Resource.from_contents(content)
    return resource @ Registry()


def _told(validator: Draft202012Validator, value: Any, place: str = "") -> list[str]:
    return [
        f"{place}{'.'.join(map(str, error.absolute_path)) or '(the whole)'}: {error.message[:200]}"
        for error in sorted(validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path])
    ]


class Compact:
    """The project's own."""

    name = "the project's compact schemas"

    def __init__(self, path: Path = HERE / "compact.yaml") -> None:
        self.kinds: dict[str, Any] = {
            kind: _schema({"apiVersion!": "text", "kind!": "text", **fields})
            for kind, fields in yaml.safe_load(path.read_text()).items()
        }

    def problems(self, manifest: Manifest) -> list[str] | None:
        """See `Schemas.problems`."""
        schema = self.kinds.get(kind_of(manifest))
        return None if schema is None else _told(Draft202012Validator(schema), manifest)


def _schema(shape: Any) -> dict[str, Any]:
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0])}
    if isinstance(shape, str):
        return dict(WORDS[shape]) if shape in WORDS else {"type": "string", "enum": shape.split("|")}
    return {
        "type": "object",
        "properties": {name.rstrip("!"): _schema(inner) for name, inner in shape.items()},
        "required": [name[:-1] for name in shape if name.endswith("!")],
        "additionalProperties": False,
    }


class Shipped:
    """The definitions that operators ship: files with CustomResourceDefinitions, in a folder and those below it.

    They are megabytes of YAML, and each is read when an object of its kind comes.

    Raises:
        ValueError: there is none.
    """

    name = "the operators' own definitions"

    def __init__(self, folder: Path) -> None:
        self._files = {
            (found["group"], found["kind"]): path
            for path in sorted(folder.rglob("*.yaml"))
            if (found := _IS_DEFINITION.search(path.read_text())) is not None
        }
        if not self._files:
            raise ValueError(f"{folder}, which {CRD_DIR} names, holds no CustomResourceDefinition")

    def problems(self, manifest: Manifest) -> list[str] | None:
        """See `Schemas.problems`."""
        version = self.version(manifest["apiVersion"], manifest["kind"])
        if version is None:
            return None
        schema = version["schema"]["openAPIV3Schema"]
        found = _told(self._validator(manifest["apiVersion"], manifest["kind"]), manifest)
        if version.get("deprecated"):
            found.append(f"{kind_of(manifest)} is deprecated")
        # A rule may ask for what a field of the wrong kind does not have.
        return found or [text for text, holds in rules(schema, with_defaults(schema, manifest)) if not holds]

    @cache  # noqa: B019 - one of them lives as long as the process
    def version(self, api_version: str, kind: str) -> Mapping[str, Any] | None:
        """Of a definition, the version that an object names. None: there is none."""
        group, _, name = api_version.partition("/")
        if (path := self._files.get((group, kind))) is None:
            return None
        spec = yaml.load(path.read_text(), Loader)["spec"]
        return next((version for version in spec["versions"] if version["name"] == name), None)

    @cache  # noqa: B019
    def _validator(self, api_version: str, kind: str) -> Draft202012Validator:
        version = self.version(api_version, kind)
        assert version is not None
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        return Draft202012Validator(schema)


_IS_DEFINITION = re.compile(
    r"^kind: CustomResourceDefinition$.*?^  group: (?P<group>\S+)$.*?^    kind: (?P<kind>\S+)$", re.M | re.S
)


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema of Kubernetes as JSON schema, in which fields that it does not name are refused."""
    out = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        out = {"type": ["integer", "string"]}
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    if "properties" in schema:
        out["properties"] = {name: _strict(inner) for name, inner in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
        # The API server puts defaults in before it looks for what is missing.
        out["required"] = [name for name in schema.get("required", ()) if "default" not in schema["properties"][name]]
    if isinstance(schema.get("items"), dict):
        out["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = _strict(schema["additionalProperties"])
    return out


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """An object as the API server completes it before its rules are asked."""
    if isinstance(value, list):
        items = schema.get("items")
        return [with_defaults(items, inner) for inner in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    named = schema.get("properties", {})
    other = schema.get("additionalProperties")
    given = {name: inner["default"] for name, inner in named.items() if "default" in inner} | value
    below = {name: named.get(name, other if isinstance(other, dict) else {}) for name in given}
    return {name: with_defaults(below[name], inner) for name, inner in given.items()}


def rules(schema: Mapping[str, Any], value: Any, place: str = "") -> Iterator[tuple[str, bool]]:
    """Each rule in CEL that is about an object, as what it says and whether it holds.

    Rules about a change (`oldSelf`) are none about an object that is new.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            told = f"{place or '(the whole)'}: {rule.get('message') or rule['rule']}"
            yield told, bool(cel.evaluate(rule["rule"], {"self": value}))
    if isinstance(value, dict):
        named = schema.get("properties", {})
        other = schema.get("additionalProperties")
        for name, inner in value.items():
            below = named.get(name, other if isinstance(other, dict) else None)
            if below is not None:
                yield from rules(below, inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, inner in enumerate(value):
            yield from rules(schema["items"], inner, f"{place}.{number}")
