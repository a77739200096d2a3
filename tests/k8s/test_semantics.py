"""Selectors, quantities, tolerations and NetworkPolicies mean what Kubernetes says that they mean."""

from __future__ import annotations

import pytest
import yaml

from k8s.policies.deployment import Deployment, Pod, number, selects, tolerates
from k8s.policies.network import End, reaches

SELF = End(namespace="skipvision", labels={"app": "a"})
NEIGHBOUR = End(namespace="skipvision", labels={"app": "b"})
FAR = End(namespace="elsewhere", labels={"app": "b"})
OUTSIDE = End(address="198.51.100.7")


def under(*specs: str) -> Deployment:
    """A namespace with these NetworkPolicies."""
    policies = [{"kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": yaml.safe_load(spec)} for spec in specs]
    return Deployment(name="x", manifests=policies, beside=[])


DENY = "{podSelector: {}, policyTypes: [Ingress, Egress]}"


def test_without_a_policy_everything_is_let_through():
    assert reaches(under(), FAR, SELF, 80)
    assert reaches(under(), SELF, OUTSIDE, 80)


def test_a_policy_about_others_changes_nothing():
    assert reaches(under("{podSelector: {matchLabels: {app: z}}, policyTypes: [Ingress]}"), FAR, SELF, 80)


def test_a_direction_that_no_policy_names_stays_open():
    only_in = under("{podSelector: {}, policyTypes: [Ingress]}")
    assert reaches(only_in, SELF, OUTSIDE, 80)
    assert not reaches(only_in, FAR, SELF, 80)


def test_policies_add_up():
    both = under(DENY, "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}")
    assert reaches(both, FAR, SELF, 80)
    assert not reaches(both, FAR, SELF, 81)
    assert not reaches(both, FAR, SELF, 80, "UDP")


def test_both_ends_must_agree():
    let_in = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress], ingress: [{}]}"
    assert not reaches(under(DENY, let_in), NEIGHBOUR, SELF, 80)
    assert reaches(under(DENY, let_in, "{podSelector: {}, policyTypes: [Egress], egress: [{}]}"), NEIGHBOUR, SELF, 80)


@pytest.mark.parametrize(
    ("peer", "near", "far"),
    [
        ("podSelector: {}", True, False),
        ("namespaceSelector: {}", True, True),
        ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere}}", False, True),
        ("{namespaceSelector: {}, podSelector: {matchLabels: {app: z}}}", False, False),
        ("ipBlock: {cidr: 0.0.0.0/0}", False, False),
    ],
)
def test_a_peer_is_of_the_own_namespace_unless_another_is_named(peer, near, far):
    peer = peer if peer.startswith("{") else f"{{{peer}}}"
    let = under(f"{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{peer}]}}]}}")
    assert (reaches(let, NEIGHBOUR, SELF, 80), reaches(let, FAR, SELF, 80)) == (near, far)


@pytest.mark.parametrize(
    ("address", "reached"),
    [("198.51.100.7", True), ("10.1.2.3", False), ("2001:db8::1", False), ("169.254.169.254", False)],
)
def test_a_block_holds_addresses_of_its_kind_but_for_those_it_excepts(address, reached):
    block = "{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.0.0/16]}"
    let = under(f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {block}}}]}}]}}")
    assert reaches(let, SELF, End(address=address), 443) is reached


@pytest.mark.parametrize(
    ("selector", "picked"),
    [
        ({}, True),
        ({"matchLabels": {"app": "a"}}, True),
        ({"matchLabels": {"app": "a", "b": "c"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_picks_by_labels(selector, picked):
    assert selects(selector, {"app": "a"}) is picked


@pytest.mark.parametrize(
    ("quantity", "value"), [("500m", 0.5), ("2", 2), (4, 4), ("4Gi", 4 * 2**30), ("1M", 1e6), ("1.5", 1.5)]
)
def test_a_quantity_is_read(quantity, value):
    assert number(quantity) == value


@pytest.mark.parametrize("quantity", ["4GB", "many", "", "4 Gi"])
def test_what_is_no_quantity_is_refused(quantity):
    with pytest.raises(ValueError, match="is no quantity"):
        number(quantity)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "spot", "operator": "Exists"}, True),
        ({"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "spot", "value": "no"}, False),
        ({"key": "spot", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "operator": "Exists"}, False),
    ],
)
def test_a_taint_is_tolerated_by_its_key_value_and_effect(toleration, tolerated):
    pod = Pod(name="x", labels={}, annotations={}, spec={"tolerations": [toleration], "containers": []})
    assert tolerates(pod, "spot", "yes") is tolerated
