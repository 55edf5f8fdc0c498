"""Rules for the files of KubeRay: its RayCluster and RayJob, with the fields of its API ray.io/v1."""

from collections.abc import Iterator
from typing import Any

from orchestrator.cluster.findings import (
    Finding,
    gaps,
    image_findings,
    items,
    mapping,
    nearest,
    unknown_keys,
    within,
)
from orchestrator.strict_yaml import Place

FIELDS = {  # of KubeRay 1.6 and 1.7
    "RayCluster": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
        "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
        "upgradeStrategy workerGroupSpecs"
    ),
    "RayJob": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
        "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
        "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
        "ttlSecondsAfterFinished"
    ),
    "headGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "workerGroupSpecs": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas "
        "resources scaleStrategy suspend template"
    ),
    "autoscalerOptions": (
        "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
        "version volumeMounts"
    ),
    "authOptions": "enableK8sTokenAuth mode secretName",
}
LONGEST_IDLE = 3600  # seconds that a GPU may be paid for with nothing to do
STOPS = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}


def findings(documents: dict[int, dict[str, Any]]) -> Iterator[Finding]:
    """What is wrong or unsafe in the documents of a file, each place beginning with the document's number."""
    for number, document in documents.items():
        for place, rule, value, next_step in _document(document):
            yield (number, *place), rule, value, next_step


def _document(document: dict[str, Any]) -> Iterator[Finding]:
    yield from gaps(document)
    kind, spec = document.get("kind"), document.get("spec")
    if kind == "Secret":
        yield ("kind",), "a token must not stand in a file", kind, "make it by `kubectl create secret`, from your own"
    if str(document.get("apiVersion")).startswith("ray.io/") or kind in ("RayCluster", "RayJob"):
        if document.get("apiVersion") != "ray.io/v1":
            yield ("apiVersion",), "must be ray.io/v1", document.get("apiVersion"), "write ray.io/v1"
        if kind not in ("RayCluster", "RayJob"):
            yield ("kind",), "not a kind whose rules this knows", kind, nearest(str(kind), ("RayCluster", "RayJob"))
        elif not isinstance(spec, dict):
            yield ("spec",), "must be a mapping", spec, "see cluster/kuberay.yaml"
        elif kind == "RayCluster":
            yield from _cluster(spec, ("spec",))
        else:
            yield from _job(spec)


def _job(spec: dict[str, Any]) -> Iterator[Finding]:
    yield from unknown_keys(spec, FIELDS["RayJob"].split(), ("spec",))
    if not spec.get("entrypoint") and spec.get("submissionMode") != "InteractiveMode":
        yield ("spec", "entrypoint"), "missing: there is nothing to run", None, "write idenctl study run FILE"
    if "rayClusterSpec" in spec:
        yield from _cluster(mapping(spec["rayClusterSpec"]), ("spec", "rayClusterSpec"))
        if spec.get("shutdownAfterJobFinishes") is not True and not spec.get("deletionStrategy"):
            rule = "the job's own cluster must go when it is done, or is paid for"
            yield ("spec", "shutdownAfterJobFinishes"), rule, spec.get("shutdownAfterJobFinishes"), "set it to true"
    elif not within(spec, "clusterSelector", "ray.io/cluster"):
        rule = "missing: neither a cluster to run on nor one to make"
        yield ("spec", "clusterSelector"), rule, None, "write {ray.io/cluster: NAME}, or a rayClusterSpec"


def _cluster(spec: dict[str, Any], place: Place) -> Iterator[Finding]:
    yield from unknown_keys(spec, FIELDS["RayCluster"].split(), place)
    for part in ("headGroupSpec", "autoscalerOptions", "authOptions"):
        yield from unknown_keys(spec.get(part), FIELDS[part].split(), (*place, part))
    mode = within(spec, "authOptions", "mode")
    if mode != "token":
        rule = "whoever reaches this Ray can run code: it must ask for the token"
        yield (*place, "authOptions", "mode"), rule, mode, "write authOptions: {mode: token, secretName: idenctl-token}"
    if "rayVersion" not in spec:
        yield (*place, "rayVersion"), "missing: KubeRay asks for it with a token", None, "name the image's version"
    head = mapping(spec.get("headGroupSpec"))
    if head.get("serviceType", "ClusterIP") != "ClusterIP":
        rule = "the head must be reached from inside alone"
        yield (
            (*place, "headGroupSpec", "serviceType"),
            rule,
            head["serviceType"],
            "use ClusterIP and kubectl port-forward",
        )
    if head.get("enableIngress"):
        rule = "the dashboard takes jobs, and must not be opened"
        yield (*place, "headGroupSpec", "enableIngress"), rule, True, "remove it; use kubectl port-forward"
    yield from _stops(head, (*place, "headGroupSpec"))
    yield from _pods(head, (*place, "headGroupSpec"))
    if spec.get("enableInTreeAutoscaling") is not True:
        rule = "workers must come as they are needed, and go"
        yield (*place, "enableInTreeAutoscaling"), rule, spec.get("enableInTreeAutoscaling"), "set it to true"
    idle = within(spec, "autoscalerOptions", "idleTimeoutSeconds")
    if type(idle) is not int or not 0 < idle <= LONGEST_IDLE:
        rule = f"workers with nothing to do must be given back, after more than 0 and at most {LONGEST_IDLE} seconds"
        yield (*place, "autoscalerOptions", "idleTimeoutSeconds"), rule, idle, "set it to 300"
    for index, group in enumerate(items(spec.get("workerGroupSpecs"))):
        yield from _group(mapping(group), (*place, "workerGroupSpecs", index))
    if not items(spec.get("workerGroupSpecs")):
        yield (*place, "workerGroupSpecs"), "no group of workers", spec.get("workerGroupSpecs"), "add one"


def _group(group: dict[str, Any], place: Place) -> Iterator[Finding]:
    yield from unknown_keys(group, FIELDS["workerGroupSpecs"].split(), place)
    least, most = group.get("minReplicas", 0), group.get("maxReplicas")
    if type(most) is not int:
        yield (*place, "maxReplicas"), "missing: there would be no limit", most, "state how many may run at once"
    elif type(least) is int and most < max(least, 1):
        rule = f"must be at least minReplicas, {least}, and 1, or these workers are never started"
        yield (*place, "maxReplicas"), rule, most, "raise it, or remove the group"
    yield from _pods(group, place)


def _stops(head: dict[str, Any], place: Place) -> Iterator[Finding]:
    """A job that is stopped saves its state only where it gets SIGINT, and time."""
    env = {str(within(one, "name")): within(one, "value") for one in items(within(_container(head), "env"))}
    for name, value in STOPS.items():
        if env.get(name) is None or (name == "RAY_JOB_STOP_SIGNAL" and env[name] != value):
            rule = f"a job that is stopped saves its state only with {name}"
            yield (*place, "template", "spec", "containers", 0, "env"), rule, env.get(name), f'add value: "{value}"'


def _container(group: dict[str, Any]) -> Any:
    """The first container, which is Ray's."""
    return next(iter(items(within(group, "template", "spec", "containers"))), None)


def _pods(group: dict[str, Any], place: Place) -> Iterator[Finding]:
    """What is unsafe in a group's pods."""
    spec, here = mapping(within(group, "template", "spec")), (*place, "template", "spec")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield (*here, key), "pods must not share the node's own", spec[key], "remove it"
    if not items(spec.get("containers")):
        yield (*here, "containers"), "missing: there is nothing to start", None, "see cluster/kuberay.yaml"
    for index, container in enumerate(items(spec.get("containers"))):
        at = (*here, "containers", index)
        yield from image_findings(within(container, "image"), (*at, "image"))
        if within(container, "securityContext", "privileged"):
            yield (*at, "securityContext", "privileged"), "no container needs to own its node", True, "remove it"
        if not within(container, "resources", "limits"):
            rule = "missing: Ray reads from it what a pod can do"
            yield (*at, "resources", "limits"), rule, None, "state cpu, memory and nvidia.com/gpu"
        for number, one in enumerate(items(within(container, "env"))):
            name = str(within(one, "name"))
            if within(one, "value") and ("TOKEN" in name or "SECRET" in name or "PASSWORD" in name):
                rule = "a secret must not stand in a file"
                yield (*at, "env", number, "value"), rule, name, "use valueFrom: {secretKeyRef: …}"
            if name == "RAY_AUTH_MODE" and within(one, "value") != "token":
                rule = "this Ray must ask for the token"
                yield (*at, "env", number, "value"), rule, within(one, "value"), "remove it: authOptions sets it"
