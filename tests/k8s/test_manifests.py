"""The committed manifests are what their sources say, are ones that Kubernetes takes, and hold the policies."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from k8s import check, policies, rendering, schemas
from k8s.policies.deployment import Deployment, deployments
from k8s.rendering import HERE, UNITS, Manifest
from k8s.schemas import CRD_DIR, Compact, Shipped, kind_of
from tests.k8s.mutations import SCHEMAS, Mutation, mutations

OVERLAYS = {deployment.name: deployment for deployment in deployments()}
MUTATIONS = mutations()
OBJECTS = [(unit.name, manifest) for unit in UNITS for manifest in unit.manifests()]


def _named(unit: str, manifest: Manifest) -> str:
    return f"{unit}:{manifest['kind']}/{manifest['metadata']['name']}"


# Both where both can be had: what the project says of itself must do where it is alone.
CUSTOM: list[schemas.Schemas] = [Compact()]
if folder := os.environ.get(CRD_DIR):
    CUSTOM.append(Shipped(Path(folder)))


@pytest.mark.parametrize("deployment", OVERLAYS.values(), ids=lambda each: each.name)
@pytest.mark.parametrize("policy", policies.ALL)
def test_an_overlay_holds_a_policy(policy, deployment):
    assert list(policies.ALL[policy](deployment)) == []


@pytest.mark.parametrize("custom", CUSTOM, ids=lambda each: each.name)
@pytest.mark.parametrize(("unit", "manifest"), OBJECTS, ids=[_named(*each) for each in OBJECTS])
def test_an_object_is_one_that_kubernetes_takes(unit, manifest, custom):
    assert schemas.problems(manifest, custom) == []


def test_what_is_committed_is_what_it_is_made_of():
    assert check.rendering_problems() == []


def test_an_old_rendering_is_noticed(monkeypatch):
    monkeypatch.setattr(check, "kubectl", lambda: "kubectl")
    monkeypatch.setattr(check, "render", lambda folder, program: "")
    monkeypatch.setattr(check, "prometheus_rule", lambda: "")
    assert len(check.rendering_problems()) == len(UNITS) + 1


@pytest.mark.parametrize(("minor", "taken"), [("29", False), ("30", True), ("32+", True)])
def test_a_kubectl_must_be_new_enough(minor, taken, tmp_path, monkeypatch):
    told = json.dumps({"clientVersion": {"major": "1", "minor": minor}})
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    rendering.kubectl.cache_clear()
    try:
        assert (rendering.kubectl() is not None) is taken
    finally:
        rendering.kubectl.cache_clear()


def test_every_component_is_rendered_in_some_overlay():
    named = {
        (unit.folder / component).resolve()
        for unit in UNITS
        for component in yaml.safe_load((unit.folder / "kustomization.yaml").read_text()).get("components", ())
    }
    assert named == {path.parent.resolve() for path in HERE.glob("components/*/kustomization.yaml")}


def test_every_dashboard_is_listed_for_grafana():
    listed = yaml.safe_load((rendering.ROOT / "monitoring/dashboards/kustomization.yaml").read_text())
    files = {file for each in listed["configMapGenerator"] for file in each["files"]}
    there = (rendering.ROOT / "monitoring/dashboards/generated").glob("*.json")
    assert files == {f"generated/{path.name}" for path in there}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name.replace(" ", "-"))
def test_whatever_is_wrong_is_caught_by_name(mutation: Mutation):
    wrong = mutation.applied(OVERLAYS[mutation.overlay])
    if mutation.caught_by == SCHEMAS:
        changed = _changed(OVERLAYS[mutation.overlay], wrong)
        for custom in CUSTOM:
            assert schemas.problems(changed, custom), custom.name
    else:
        assert list(policies.ALL[mutation.caught_by](wrong))


def _changed(sound: Deployment, wrong: Deployment) -> Manifest:
    before, after = [*sound.manifests, *sound.beside], [*wrong.manifests, *wrong.beside]
    [changed] = [new for old, new in zip(before, after, strict=True) if old != new]
    return changed


def test_every_policy_catches_something():
    assert {mutation.caught_by for mutation in MUTATIONS} == {*policies.ALL, SCHEMAS}


def test_each_mutation_has_a_name_of_its_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 30


def test_an_object_that_no_schema_knows_is_a_problem():
    unknown = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    for custom in CUSTOM:
        assert schemas.problems(unknown, custom) == ["no schema knows example.com/v1/Thing"]
    assert schemas.problems({**unknown, "apiVersion": "apps/v1"}, CUSTOM[0]) == [
        "no schema of Kubernetes 1.30.0 knows apps/v1/Thing"
    ]


def test_counts_say_how_many_were_checked_by_what(capsys, monkeypatch):
    monkeypatch.delenv(CRD_DIR, raising=False)
    assert check.main() == 0
    told = capsys.readouterr().out
    custom = sum(Compact().problems(manifest) is not None for _, manifest in OBJECTS)
    assert f"{len(OBJECTS)} objects: " in told
    assert f"{custom} {Compact.name}" in told
    assert f"{len(OBJECTS) - custom} Kubernetes' own" in told
    assert f"{len(policies.ALL)} policies for 3 overlays: {3 * len(policies.ALL)} hold" in told
    assert "0 problems" in told


def test_a_problem_is_told_and_ends_the_check(capsys, monkeypatch):
    broken = {"gpus_are_asked_for_whole": ["no toleration"]}
    monkeypatch.setattr(policies, "broken", lambda deployment: broken if deployment.name == "gpu" else {})
    assert check.main() == 1
    assert "gpu: gpus_are_asked_for_whole: no toleration" in capsys.readouterr().err


# Definitions as operators ship them, made small: how they are read does not depend on whether any are at hand.
_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  group: example.com
  names:
    kind: Thing
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [least, mode]
            x-kubernetes-validations:
            - rule: self.least <= self.most
              message: the least is more than the most
            - rule: self.least == oldSelf.least
            properties:
              least: {type: integer}
              most: {type: integer, default: 3}
              mode: {type: string, default: plain, enum: [plain, =]}
              port: {x-kubernetes-int-or-string: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v1beta1
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object}
"""


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"least": 1}, None),
        ({"least": 1, "port": "http", "free": {"anything": 1}}, None),
        ({"least": 4}, "spec: the least is more than the most"),
        ({"least": 4, "most": 5}, None),
        ({}, "'least' is a required property"),
        ({"least": 1, "leest": 1}, "'leest' was unexpected"),
        ({"least": "1"}, "spec.least: '1' is not of type 'integer'"),
    ],
)
def test_shipped_definitions_are_held_strictly_with_their_defaults_and_rules(tmp_path, spec, says):
    (tmp_path / "crd.yaml").write_text(_DEFINITION)
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
    found = schemas.problems(thing, Shipped(tmp_path))
    assert found == [] if says is None else says in found[0]


def test_a_deprecated_version_is_a_problem(tmp_path):
    (tmp_path / "crd.yaml").write_text(_DEFINITION)
    thing = {"apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {}}
    assert schemas.problems(thing, Shipped(tmp_path)) == ["example.com/v1beta1/Thing is deprecated"]


def test_a_folder_without_definitions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no CustomResourceDefinition"):
        Shipped(tmp_path)


if len(CUSTOM) > 1:

    @pytest.mark.parametrize("kind", Compact().kinds)
    def test_the_compact_schemas_say_what_the_operators_definitions_say(kind):
        api_version, _, name = kind.rpartition("/")
        version = CUSTOM[1].version(api_version, name)
        assert version is not None, kind
        shipped = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        _hold_against(Compact().kinds[kind]["properties"]["spec"], shipped, "spec")


def _hold_against(compact, shipped, place):
    """Every field is there, of the same kind, and what must be there must."""
    if "x-kubernetes-int-or-string" not in shipped:
        assert compact["type"] == shipped["type"], place
    assert not set(compact.get("enum", ())) - set(shipped.get("enum", compact.get("enum", ()))), place
    for name, inner in compact.get("properties", {}).items():
        assert name in shipped["properties"], f"{place}.{name}"
        _hold_against(inner, shipped["properties"][name], f"{place}.{name}")
    if compact.get("properties"):
        defaults = {name for name, inner in shipped["properties"].items() if "default" in inner}
        assert set(compact.get("required", ())) >= set(shipped.get("required", ())) - defaults, place
    if compact["type"] == "array":
        _hold_against(compact["items"], shipped["items"], f"{place}[]")


def test_no_manifest_names_a_registry_of_somebody_else():
    hosts = re.compile(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:io|com|org|dev)/[a-z]", re.I)
    for unit in UNITS:
        for deployment in [each for each in OVERLAYS.values() if each.name == unit.name]:
            for pod in deployment.pods():
                for container in pod.containers:
                    found = hosts.match(container["image"])
                    assert found is None or container["image"].startswith("registry.example.com/"), container["image"]


def test_every_kind_is_known_to_the_compact_schemas_or_to_kubernetes():
    custom = {kind_of(manifest) for _, manifest in OBJECTS} & set(Compact().kinds)
    assert custom == set(Compact().kinds), "a schema that no object needs says nothing"


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(yaml.YAMLError, match="one stands twice"):
        rendering.read("spec: {replicas: 1, replicas: 2}")
