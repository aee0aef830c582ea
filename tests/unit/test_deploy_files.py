"""The files of cluster/deploy, held against Ray's own readers of them and Kubernetes' schemas.

KubeRay's schemas are in no package. Of its two kinds the pods are checked whole, by Kubernetes' schema, the names
around them by what the reference of KubeRay's API (ray.io/v1) lists, and the cluster by Ray's autoscaler.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click import Context
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from cluster.ray_job import STOP_WAIT, seconds_to_stop
from configs.derive import derive
from configs.load import load_recipe

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
KUBERNETES = "1.34"
SECONDS_TO_STOP = seconds_to_stop(load_recipe(ROOT / "configs" / "emocaliber" / "4nodes.yaml"))
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN")

Document = dict[str, Any]
FIELDS = {
    "cluster": "rayVersion authOptions headGroupSpec workerGroupSpecs enableInTreeAutoscaling autoscalerOptions "
    "headServiceAnnotations gcsFaultToleranceOptions managedBy suspend upgradeStrategy",
    "head": "serviceType headService enableIngress rayStartParams template resources labels",
    "workers": "groupName replicas minReplicas maxReplicas numOfHosts idleTimeoutSeconds rayStartParams template "
    "scaleStrategy suspend resources labels",
    "job": "entrypoint runtimeEnvYAML jobId submissionMode rayClusterSpec clusterSelector submitterPodTemplate "
    "submitterConfig metadata managedBy deletionStrategy activeDeadlineSeconds backoffLimit entrypointResources "
    "entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend",
}


def read(name: str) -> Document:
    document: Document = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return document


def cluster_of(document: Document) -> Document:
    spec: Document = document["spec"]
    return spec if document["kind"] == "RayCluster" else spec["rayClusterSpec"]


def start_options(words: list[str]) -> Context:
    """The options of a `ray start`, as Ray parses them; click's error for one that it has not."""
    return start.make_context("start", list(words))


# --- Kubernetes

KUBERAY = ("raycluster.yaml", "rayjob.yaml")


@pytest.mark.parametrize("name", KUBERAY)
def test_ray_itself_reads_the_cluster_and_finds_room_for_four_nodes(name: str) -> None:
    document = read(name)
    recipe = load_recipe(ROOT / "configs" / "emocaliber" / "4nodes.yaml")

    types = _derive_autoscaling_config_from_ray_cr({**document, "spec": cluster_of(document)})["available_node_types"]

    group = types["gpus"]
    wanted = derive(recipe)
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert group["min_workers"] == group["max_workers"]
    assert group["min_workers"] * group["resources"]["GPU"] == wanted.ray_gpus
    assert group["min_workers"] * group["resources"]["CPU"] >= wanted.ray_cpus


@pytest.mark.parametrize("name", KUBERAY)
def test_no_name_is_one_that_kuberay_does_not_know(name: str) -> None:
    document = read(name)
    cluster = cluster_of(document)

    assert document["apiVersion"] == "ray.io/v1"
    if document["kind"] == "RayJob":
        assert unknown(document["spec"], "job") == set()
    assert unknown(cluster, "cluster") == set()
    assert unknown(cluster["headGroupSpec"], "head") == set()
    for group in cluster["workerGroupSpecs"]:
        assert unknown(group, "workers") == set()


def unknown(found: Mapping[str, object], kind: str) -> set[str]:
    return set(found) - set(FIELDS[kind].split())


@pytest.mark.parametrize("name", KUBERAY)
def test_the_pods_and_the_policy_are_what_kubernetes_takes(name: str) -> None:
    for template in templates(read(name)):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES, strict=True)
    kubernetes_validate.validate(read("network-policy.yaml"), KUBERNETES, strict=True)


def templates(document: Document) -> Iterator[Document]:
    cluster = cluster_of(document)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


@pytest.mark.parametrize("name", KUBERAY)
def test_the_policy_is_about_every_pod(name: str) -> None:
    policy = read("network-policy.yaml")

    for template in templates(read(name)):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["metadata"]["namespace"] == read(name)["metadata"]["namespace"]


@pytest.mark.parametrize("name", KUBERAY)
def test_what_is_given_to_ray_start_are_options_of_it(name: str) -> None:
    cluster = cluster_of(read(name))

    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay takes nothing else
        start_options(
            [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        )


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_want_a_token_run_without_root_and_hold_no_secret_themselves(name: str) -> None:
    document = read(name)

    assert cluster_of(document)["authOptions"] == {"mode": "token"}
    for template in templates(document):
        (container,) = template["spec"]["containers"]
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["automountServiceAccountToken"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert not {entry["name"] for entry in container.get("env", [])} & set(SECRETS)


def test_the_standing_cluster_s_dashboard_is_on_loopback_and_its_jobs_have_time_to_stop() -> None:
    head = read("raycluster.yaml")["spec"]["headGroupSpec"]
    (container,) = head["template"]["spec"]["containers"]

    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert int({entry["name"]: entry["value"] for entry in container["env"]}[STOP_WAIT]) >= SECONDS_TO_STOP


def test_the_job_s_cluster_is_the_standing_one_but_for_who_reaches_the_dashboard() -> None:
    standing, own = (cluster_of(read(name)) for name in KUBERAY)
    del standing["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]  # the job's own environment has it
    hosts = [cluster["headGroupSpec"]["rayStartParams"].pop("dashboard-host") for cluster in (standing, own)]

    assert own == standing
    assert hosts == ["127.0.0.1", "0.0.0.0"]
    assert int(yaml.safe_load(read("rayjob.yaml")["spec"]["runtimeEnvYAML"])["env_vars"][STOP_WAIT]) >= SECONDS_TO_STOP


def test_the_policy_lets_nobody_in_but_the_pods_themselves_and_the_operator() -> None:
    spec = read("network-policy.yaml")["spec"]
    own, operator = spec["ingress"]

    assert spec["policyTypes"] == ["Ingress"]
    assert own == {"from": [{"podSelector": spec["podSelector"]}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all({"namespaceSelector", "podSelector"} == set(source) for source in operator["from"])


# --- ray up


def test_the_launcher_s_file_passes_ray_s_schema() -> None:
    prepared = prepare_config(read("launcher.yaml"))

    validate_config(prepared)
    assert prepared["max_workers"] == len(prepared["provider"]["worker_ips"])


def test_the_launcher_starts_ray_with_a_token_a_dashboard_on_loopback_and_time_to_stop() -> None:
    config = read("launcher.yaml")
    variables, head = started(config["head_start_ray_commands"])
    worker_variables, worker = started(config["worker_start_ray_commands"])

    assert variables["RAY_AUTH_MODE"] == worker_variables["RAY_AUTH_MODE"] == "token"
    assert int(variables[STOP_WAIT]) >= SECONDS_TO_STOP
    assert (head.params["head"], head.params["dashboard_host"]) == (True, "127.0.0.1")
    assert worker.params["address"] == "$RAY_HEAD_IP:6379"
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


def started(commands: list[str]) -> tuple[dict[str, str], Context]:
    """Variables and options of the `ray start` among the commands."""
    (command,) = [shlex.split(command) for command in commands if "ray start" in command]
    at = command.index("ray")
    return dict(word.split("=", 1) for word in command[:at]), start_options(command[at + 2 :])


# --- the image


def test_the_image_installs_what_is_there_and_runs_without_root() -> None:
    lines = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8")).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    (extra,) = re.findall(r"pip install .*'\.\[(\w+)\]'", "\n".join(lines))
    assert extra in extras
    assert [rest for word, rest in steps if word == "USER"][-1].split(":")[0] not in ("root", "0")
    assert not any(secret in rest for word, rest in steps if word in ("ARG", "ENV") for secret in SECRETS)


def test_the_image_gets_every_folder_that_is_installed_and_nothing_that_is_not_the_repository_s() -> None:
    first, *kept = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    included = {line.removeprefix("!") for line in kept if line.startswith("!")}
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert first == "*"
    assert {folder.removesuffix("*") for folder in setuptools["packages"]["find"]["include"]} <= included
    assert {"pyproject.toml", "README.md", "LICENSE"} <= included  # pyproject.toml names the others
    assert all((ROOT / path).exists() for path in included)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "launcher.yaml", "slurm.sh", "Dockerfile"])
def test_what_a_user_must_change_is_marked(name: str) -> None:
    assert "CHANGE" in (DEPLOY / name).read_text(encoding="utf-8")
