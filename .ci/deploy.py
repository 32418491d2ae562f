"""Checks the objects under deploy/: Kubernetes' own against its schemas, the custom ones against .ci/custom_resources.schema.json.

Where kubectl is, what is checked is what `kubectl kustomize` makes of each overlay; else each file of the base by itself.
"""

import json
import pathlib
import shutil
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
    folder = ROOT / "deploy/kubernetes"
    if shutil.which("kubectl"):
        for overlay in sorted((folder / "overlays").iterdir()):
            made = subprocess.run(["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True).stdout
            yield overlay.name, list(yaml.safe_load_all(made))
    else:
        print("!!! deploy: there is no kubectl: the overlays were NOT put together, the base is checked file by file")
        for file in sorted((folder / "base").glob("*.yaml")):
            if file.name != "kustomization.yaml":
                yield file.name, list(yaml.safe_load_all(file.read_text()))


def check(manifest, custom):
    if manifest["apiVersion"] in NATIVE:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    jsonschema.validate(manifest["spec"], custom[manifest["kind"]])
    if manifest["kind"] == "ScaledJob":
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": manifest["spec"]["jobTargetRef"]}
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


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
