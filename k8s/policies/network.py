"""Who reaches whom, played through by the NetworkPolicies as Kubernetes defines them. No traffic flows here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from k8s.policies.deployment import Deployment, Pod, selects

OWN = "skipvision"
OPERATOR, PROMETHEUS, GATEWAY = "kuberay-system", "monitoring", "gateway"

TELLS_KEYS = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
"""Where clouds tell a machine who it is, and hand out its keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """One end of a connection: a Pod by namespace and labels, or an address outside."""

    namespace: str = ""
    labels: Mapping[str, str] | None = None
    address: str = ""

    @property
    def is_own(self) -> bool:
        """Whether the policies here are about it."""
        return self.namespace == OWN


def of(pod: Pod) -> End:
    """A Pod of ours as an end."""
    return End(namespace=OWN, labels=pod.labels)


def reaches(deployment: Deployment, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let out where it begins, and in where it ends."""
    return _lets(deployment, source, target, "Egress", port, protocol) and _lets(
        deployment, target, source, "Ingress", port, protocol
    )


def _lets(deployment: Deployment, end: End, other: End, direction: str, port: int, protocol: str) -> bool:
    if not end.is_own:
        return True
    about = [
        policy["spec"]
        for policy in deployment.of("NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], end.labels or {})
    ]
    side, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    rules = [rule for spec in about for rule in spec.get(side, ())]
    return not about or any(_port(rule, port, protocol) and _peer(rule.get(peers), other) for rule in rules)


def _port(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(
        each.get("protocol", "TCP") == protocol and each.get("port") in (None, port) for each in ports
    )


def _peer(peers: list[dict[str, Any]] | None, other: End) -> bool:
    if not peers:
        return True
    for peer in peers:
        if block := peer.get("ipBlock"):
            barred = any(_in(other.address, each) for each in block.get("except", ()))
            if _in(other.address, block["cidr"]) and not barred:
                return True
            continue
        if other.address:
            continue
        namespace = peer.get("namespaceSelector")
        names = {"kubernetes.io/metadata.name": other.namespace}
        near = other.namespace == OWN if namespace is None else selects(namespace, names)
        if near and selects(peer.get("podSelector", {}), other.labels or {}):
            return True
    return False


def _in(address: str, network: str) -> bool:
    if not address:
        return False
    one, other = ip_address(address), ip_network(network)
    return one.version == other.version and one in other


def nothing_is_let_through_by_default(deployment: Deployment) -> Iterator[str]:
    """A policy about every Pod, in both directions, that lets nothing through."""
    if not any(
        policy["spec"]["podSelector"] == {}
        and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
        for policy in deployment.of("NetworkPolicy")
    ):
        yield "there is no policy that denies by default"


def who_must_be_let_in_is(deployment: Deployment) -> Iterator[str]:
    """The operator to heads, Gateway or Ingress to the service, each cluster to itself, all to names and images."""
    gateway = End(namespace=GATEWAY, labels={})
    for group in deployment.groups():
        pod, name = of(group.pod), group.pod.name
        same = deployment.groups(group.owner["kind"])
        if group.is_head:
            for port in (8265, 8000) if group.owner["kind"] == "RayService" else (8265,):
                if not reaches(deployment, End(namespace=OPERATOR, labels={}), pod, port):
                    yield f"the operator does not reach {name} at {port}"
        elif group.owner["kind"] == "RayService" and not reaches(deployment, gateway, pod, 8000):
            yield f"requests do not reach {name} at 8000"
        for other in same:
            if not reaches(deployment, pod, of(other.pod), 40_000):
                yield f"{name} does not reach {other.pod.name}"
        if not reaches(deployment, pod, End(address="93.184.215.14"), 443):
            yield f"{name} does not reach images and object stores"
    for each in deployment.pods():
        names = End(namespace="kube-system", labels={"k8s-app": "kube-dns"})
        if not all(reaches(deployment, of(each), names, 53, protocol) for protocol in ("UDP", "TCP")):
            yield f"{each.name} cannot look names up"
        if each.spec.get("automountServiceAccountToken") and not reaches(
            deployment, of(each), End(address="10.0.0.1"), 443
        ):
            yield f"{each.name} does not reach Kubernetes"


def nobody_else_is_let_in(deployment: Deployment) -> Iterator[str]:
    """Strangers, jobs to the service and back, requests to heads, anybody to Redis, anything but TLS to the outside."""
    stranger = End(namespace="elsewhere", labels={"app.kubernetes.io/part-of": "skipvision"})
    for pod in deployment.pods():
        for port in sorted({*pod.ports.values(), 22}):
            if reaches(deployment, stranger, of(pod), port):
                yield f"a stranger reaches {pod.name} at {port}"
        for address, port in (("93.184.215.14", 80), ("10.0.0.7", 5432), ("10.0.0.7", 22)):
            if reaches(deployment, of(pod), End(address=address), port):
                yield f"{pod.name} reaches {address}:{port}"
        if not pod.spec.get("automountServiceAccountToken") and reaches(
            deployment, of(pod), End(address="10.0.0.1"), 443
        ):
            yield f"{pod.name} reaches Kubernetes, and asks it nothing"
    for group in deployment.groups():
        for other in deployment.groups():
            apart = group.owner["kind"] != other.owner["kind"]
            if apart and reaches(deployment, of(group.pod), of(other.pod), 8265):
                yield f"{group.pod.name} reaches {other.pod.name}"
        for port in (8265, 10001, 6379, *([8000] if group.is_head else [])):
            if reaches(deployment, End(namespace=GATEWAY, labels={}), of(group.pod), port):
                yield f"requests reach {group.pod.name} at {port}"


def metadata_services_are_out_of_reach(deployment: Deployment) -> Iterator[str]:
    """Images come from addresses that strangers choose; none of them may be a cloud's own."""
    for pod in deployment.pods():
        for address in TELLS_KEYS:
            for port in (80, 443):
                if reaches(deployment, of(pod), End(address=address), port):
                    yield f"{pod.name} reaches {address}:{port}"


def prometheus_reaches_what_it_reads(deployment: Deployment) -> Iterator[str]:
    """Every port of every Pod that a PodMonitor is about."""
    for monitor in (each for each in deployment.beside if each["kind"] == "PodMonitor"):
        for group in deployment.groups():
            if not selects(monitor["spec"]["selector"], group.pod.labels):
                continue
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                port = group.pod.ports.get(endpoint["port"])
                if port and not reaches(deployment, End(namespace=PROMETHEUS, labels={}), of(group.pod), port):
                    yield f"Prometheus does not reach {group.pod.name} at {endpoint['port']}"


def only_heads_reach_redis(deployment: Deployment) -> Iterator[str]:
    """The head of the service, where Redis holds its books."""
    stores = [pod for pod in deployment.pods() if pod.labels.get("app.kubernetes.io/component") == "redis"]
    for store in stores:
        for group in deployment.groups():
            wanted = group.is_head and group.owner["kind"] == "RayService"
            if reaches(deployment, of(group.pod), of(store), 6379) is not wanted:
                yield f"{group.pod.name} {'does not reach' if wanted else 'reaches'} {store.name}"
