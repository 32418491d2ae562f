"""Checks what `kubectl kustomize` makes of each overlay under deploy/: Kubernetes' own objects against its schemas, the
custom ones against .ci/custom_resources.schema.json, and that whatever runs the program was put together whole."""

import json
import pathlib
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
KUBERNETES = "1.30"
NATIVE = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}


def manifests():
    """Pairs of where objects come from and the objects."""
    for overlay in sorted((ROOT / "deploy/kubernetes/overlays").iterdir()):
        made = subprocess.run(["kubectl", "kustomize", overlay], check=True, stdout=subprocess.PIPE, text=True).stdout
        yield overlay.name, list(yaml.safe_load_all(made))


def check(manifest, custom):
    if manifest["apiVersion"] in NATIVE:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        if manifest["kind"] == "Deployment":
            check_pod(manifest["spec"]["template"]["spec"])
        return
    jsonschema.validate(manifest["spec"], custom[manifest["kind"]])
    if manifest["kind"] == "ScaledJob":
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": manifest["spec"]["jobTargetRef"]}
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
        check_pod(job["spec"]["template"]["spec"])


def check_pod(pod):
    """Every container has what Kubernetes' schemas do not ask for and a patch may drop."""
    for container in pod["containers"]:
        missing = {"image", "args", "envFrom", "resources", "securityContext", "volumeMounts"} - container.keys()
        if missing:
            raise ValueError(f"container {container['name']} lacks {', '.join(sorted(missing))}")


def main():
    custom = json.loads((ROOT / ".ci/custom_resources.schema.json").read_text())
    problems, checked = [], 0
    for origin, objects in manifests():
        for manifest in objects:
            checked += 1
            try:
                check(manifest, custom)
            except Exception as error:  # of two libraries, each with errors of its own
                problems.append(f"{origin}: {manifest.get('kind')} {manifest['metadata']['name']}: {error}")
    dashboard = json.loads((ROOT / "deploy/grafana/graspd.json").read_text())
    problems += [f"graspd.json: panel {panel.get('title')} asks nothing" for panel in dashboard["panels"] if not panel.get("targets")]
    for file in (ROOT / "deploy").glob("docker-compose*.yml"):
        if "services" not in yaml.safe_load(file.read_text()):
            problems.append(f"{file.name}: no services")
    print("\n".join(problems) or f"{checked} objects and {len(dashboard['panels'])} panels are well-formed")
    sys.exit(bool(problems))


main()
