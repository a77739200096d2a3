"""What the manifests must be, beyond what schemas can say: each policy is a function, which tells what is wrong.

`ALL` holds them by name. They read an overlay's committed rendering and what is applied beside it.
"""

from __future__ import annotations

from inspect import isfunction, signature

from k8s.policies import monitoring, network, ray, security, serving
from k8s.policies.deployment import Deployment, Policy

ALL: dict[str, Policy] = {
    name: function
    for room in (ray, security, network, serving, monitoring)
    for name, function in vars(room).items()
    if isfunction(function) and not name.startswith("_") and [*signature(function).parameters] == ["deployment"]
}
"""Name -> policy."""


def broken(deployment: Deployment) -> dict[str, list[str]]:
    """Of each policy that does not hold, what is wrong."""
    return {name: told for name, policy in ALL.items() if (told := list(policy(deployment)))}
