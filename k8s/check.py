"""`make k8s`: check the committed manifests, and print how many of what were checked by what."""

from __future__ import annotations

import sys
from collections import Counter

from k8s import policies
from k8s.policies.deployment import deployments
from k8s.rendering import PROMETHEUS_RULE, UNITS, kubectl, prometheus_rule, render
from k8s.schemas import VERSIONS, kind_of, problems, schemas


def main() -> int:
    """Check everything; what is wrong is printed, and counts."""
    wrong = [*rendering_problems()]
    custom, objects, by = schemas(), Counter[str](), Counter[str]()
    for unit in UNITS:
        for manifest in unit.manifests():
            objects[unit.name] += 1
            own = custom.problems(manifest) is None
            by[f"Kubernetes' own of {' and '.join(VERSIONS)}" if own else custom.name] += 1
            name = f"{unit.name}: {kind_of(manifest)} {manifest['metadata']['name']}"
            wrong += [f"{name}: {problem}" for problem in problems(manifest, custom)]
    held = 0
    for deployment in deployments():
        broken = policies.broken(deployment)
        held += len(policies.ALL) - len(broken)
        wrong += [f"{deployment.name}: {name}: {each}" for name, told in broken.items() for each in told]
    for problem in wrong:
        print(problem, file=sys.stderr)
    built = "equal to what kubectl renders" if kubectl() else "not rendered again: no kubectl 1.30 or newer"
    print(f"{sum(objects.values())} objects: {_counts(objects)}; {built}")
    print(f"against schemas: {_counts(by)}")
    print(f"{len(policies.ALL)} policies for {len(deployments())} overlays: {held} hold")
    print(f"{len(wrong)} problems")
    return 1 if wrong else 0


def rendering_problems() -> list[str]:
    """What is committed and is not what it would be made of today."""
    found = []
    if PROMETHEUS_RULE.read_text() != prometheus_rule():
        found.append(f"{PROMETHEUS_RULE.name} is not made of monitoring/rules as they are: run `make k8s-rendered`")
    if program := kubectl():
        for unit in UNITS:
            if render(unit.folder, program) != unit.committed.read_text():
                found.append(f"{unit.committed.name} is not what kubectl renders: run `make k8s-rendered`")
    return found


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.items())


if __name__ == "__main__":
    sys.exit(main())
