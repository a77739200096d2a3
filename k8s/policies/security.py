"""Who may do what: Pods, tokens, secrets, rights, images, and what Pods may take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.policies.deployment import Deployment, number
from k8s.rendering import HERE, read

_SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|API_?KEY|REDISCLI_AUTH")
_CLUSTER_WIDE = {"Namespace", "ResourceFlavor", "ClusterQueue"}
_RIGHTS = {("ray.io", "rayjobs", "get"), ("ray.io", "rayjobs", "create")}
"""All that anything here may ask of Kubernetes, besides the head's autoscaler, whose Role is the operator's."""


def pods_are_restricted(deployment: Deployment) -> Iterator[str]:
    """Pod security `restricted`, which the namespace enforces, for every container there is."""
    for pod in deployment.pods():
        whole = pod.spec.get("securityContext", {})
        if not whole.get("runAsNonRoot") or not whole.get("runAsUser"):
            yield f"{pod.name}: securityContext must say runAsNonRoot and a runAsUser that is not 0"
        if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.name}: seccompProfile is not RuntimeDefault"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.name}: {field} is set"
        if any("hostPath" in volume for volume in pod.spec.get("volumes", ())):
            yield f"{pod.name} mounts a folder of its node"
        for container in pod.containers:
            yield from _unrestricted(f"{pod.name}/{container['name']}", container.get("securityContext", {}))
    for head in deployment.heads():
        if head.cluster.get("enableInTreeAutoscaling"):
            context = head.cluster.get("autoscalerOptions", {}).get("securityContext", {})
            yield from _unrestricted(f"{head.pod.name}/autoscaler", context)


def _unrestricted(name: str, context: dict[str, object]) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name}: capabilities are not dropped, all of them"
    if context.get("privileged") or context.get("runAsUser") == 0:
        yield f"{name} is privileged, or root"


def the_namespace_enforces_it(deployment: Deployment) -> Iterator[str]:
    """One namespace, which refuses Pods that are not restricted, and everything in it."""
    namespaces = deployment.of("Namespace")
    if [each["metadata"]["name"] for each in namespaces] != ["skipvision"]:
        yield "there must be one namespace, skipvision"
    for each in namespaces:
        if each["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "the namespace does not enforce `restricted`"
    for each in deployment.manifests:
        if each["kind"] not in _CLUSTER_WIDE and each["metadata"].get("namespace") != "skipvision":
            yield f"{each['kind']} {each['metadata']['name']} is not in the namespace"


def only_who_asks_kubernetes_has_a_token(deployment: Deployment) -> Iterator[str]:
    """The autoscaler beside a head, and the schedule. Accounts exist, and give no token by themselves."""
    for pod in deployment.pods():
        account = pod.spec.get("serviceAccountName", "default")
        found = deployment.find("ServiceAccount", account)
        if found is None:
            yield f"{pod.name}: the ServiceAccount {account} is not there"
        elif found.get("automountServiceAccountToken") is not False:
            yield f"the ServiceAccount {account} gives its token to every Pod"
        has, needs = pod.spec.get("automountServiceAccountToken"), account in {"skipvision-head", "skipvision-schedule"}
        if has is not needs:
            yield f"{pod.name}: automountServiceAccountToken must be {str(needs).lower()}"
        if needs is not ("skipvision/asks-kubernetes" in pod.labels):
            yield f"{pod.name}: the label skipvision/asks-kubernetes and the token do not go together"
    for head in deployment.heads():
        if bool(head.cluster.get("enableInTreeAutoscaling")) is not bool(head.pod.spec["automountServiceAccountToken"]):
            yield f"{head.pod.name}: the autoscaler, and nobody else, needs the head's token"


def rights_are_few(deployment: Deployment) -> Iterator[str]:
    """Only what is listed here, in the namespace, for accounts that are there."""
    for each in deployment.of("ClusterRole", "ClusterRoleBinding"):
        yield f"{each['kind']} {each['metadata']['name']} reaches beyond the namespace"
    for role in deployment.of("Role"):
        for rule in role["rules"]:
            asked = {
                (group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
            if asked - _RIGHTS:
                yield f"{role['metadata']['name']}: {sorted(asked - _RIGHTS)} are more than anything here needs"
            if "get" in rule["verbs"] and not rule.get("resourceNames"):
                yield f"{role['metadata']['name']} may read every job, and not one by its name"
    for binding in deployment.of("RoleBinding"):
        if deployment.find("Role", binding["roleRef"]["name"]) is None:
            yield f"the Role {binding['roleRef']['name']} is not there"
        for subject in binding["subjects"]:
            if deployment.find("ServiceAccount", subject["name"]) is None or subject.get("namespace") != "skipvision":
                yield f"the ServiceAccount {subject['name']} is not there"


def secrets_are_only_named(deployment: Deployment) -> Iterator[str]:
    """No manifest holds a secret, and those that are named are in `secrets.example.yaml`, with their keys."""
    known = {each["metadata"]["name"]: set(each["stringData"]) for each in read(_EXAMPLES.read_text())}
    for each in deployment.of("Secret"):
        yield f"the Secret {each['metadata']['name']} stands among the manifests"
    for pod in deployment.pods():
        named = {volume["secret"]["secretName"] for volume in pod.spec.get("volumes", ()) if "secret" in volume}
        for container in pod.containers:
            for source in container.get("envFrom", ()):
                named |= {source["secretRef"]["name"]} if "secretRef" in source else set()
            for variable in container.get("env", ()):
                if _SECRET.search(variable["name"]) and "value" in variable:
                    yield f"{pod.name}: {variable['name']} stands there as it is"
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference and reference["key"] not in known.get(reference["name"], ()):
                    yield f"{pod.name}: the Secret {reference['name']} has no key {reference['key']}"
        for name in sorted(named - set(known)):
            yield f"{pod.name}: the Secret {name} is not in secrets.example.yaml"
    for name, keys in known.items():
        content = next(each for each in read(_EXAMPLES.read_text()) if each["metadata"]["name"] == name)
        if filled := [key for key in keys if content["stringData"][key]]:
            yield f"secrets.example.yaml: {name} holds values for {filled}"


_EXAMPLES = HERE / "secrets.example.yaml"


def containers_say_what_they_take(deployment: Deployment) -> Iterator[str]:
    """Requests and limits of memory, the same, so that none is killed for its neighbour; requests of CPU."""
    asked = [
        (f"{pod.name}/{each['name']}", each.get("resources", {}))
        for pod in deployment.pods()
        for each in pod.containers
    ]
    asked += [
        (f"{head.pod.name}/autoscaler", head.cluster.get("autoscalerOptions", {}).get("resources", {}))
        for head in deployment.heads()
        if head.cluster.get("enableInTreeAutoscaling")
    ]
    for name, resources in asked:
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        if "memory" not in limits or requests.get("memory") != limits["memory"]:
            yield f"{name}: memory must be requested and limited, the same"
        if "cpu" not in requests:
            yield f"{name}: no CPU is requested"
        try:
            asked_for, allowed = ({key: number(value) for key, value in each.items()} for each in (requests, limits))
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        for resource in asked_for.keys() & allowed.keys():
            if asked_for[resource] > allowed[resource]:
                yield f"{name}: more {resource} is requested than allowed"
    # Ray counts CPUs by the limit; without one a node has as many as the machine.
    for group in deployment.groups():
        if not group.pod.limit("cpu"):
            yield f"{group.pod.name}: without a limit of CPU, Ray counts all of the node's"


def images_are_pinned(deployment: Deployment) -> Iterator[str]:
    """By a version or a digest, never `latest` or nothing."""
    for pod in deployment.pods():
        for container in pod.containers:
            name, _, tag = container["image"].rpartition("/")[2].partition(":")
            if "@sha256" not in name and not re.search(r"\d+\.\d+\.\d+", tag):
                yield f"{pod.name}: the image {container['image']} has no version"


def volumes_are_there(deployment: Deployment) -> Iterator[str]:
    """What is mounted is a volume of the Pod, and what it names is among the manifests."""
    for pod in deployment.pods():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        claimed = {
            claim["metadata"]["name"]
            for each in deployment.of("StatefulSet")
            if each["metadata"]["name"] == pod.name
            for claim in each["spec"].get("volumeClaimTemplates", ())
        }
        for container in pod.containers:
            for mount in container.get("volumeMounts", ()):
                if mount["name"] not in volumes.keys() | claimed:
                    yield f"{pod.name}: there is no volume {mount['name']}"
        for volume in volumes.values():
            claim, config = volume.get("persistentVolumeClaim"), volume.get("configMap")
            if claim and deployment.find("PersistentVolumeClaim", claim["claimName"]) is None:
                yield f"{pod.name}: there is no claim {claim['claimName']}"
            if config and deployment.find("ConfigMap", config["name"]) is None:
                yield f"{pod.name}: there is no ConfigMap {config['name']}"


def ports_have_names(deployment: Deployment) -> Iterator[str]:
    """Each its own, of at most 15 characters; Ray's own have the names that the operator looks for."""
    for pod in deployment.pods():
        ports = [port for container in pod.containers for port in container.get("ports", ())]
        names = [port.get("name", "") for port in ports]
        if "" in names or len(set(names)) < len(names) or any(len(name) > 15 for name in names):
            yield f"{pod.name}: ports need names of their own, of at most 15 characters; they are {names}"
    for group in deployment.groups():
        wanted = {"metrics": 8080}
        if group.is_head:
            wanted |= {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
        if wrong := {name: group.pod.ports.get(name) for name in wanted if group.pod.ports.get(name) != wanted[name]}:
            yield f"{group.pod.name}: the operator looks for other ports by the names of {wrong}"
