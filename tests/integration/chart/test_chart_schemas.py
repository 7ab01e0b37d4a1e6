"""kubeconform over all that is shipped, against the API server's own published types.

The types come from the running API server and from crds/, so that no network is needed and nothing is skipped.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.local.binaries import find
from taskdist.local.rest import Client

# The first use of kubeconform may build it.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[3]
PUBLISHED = "x-kubernetes-group-version-kind"
OPEN = "x-kubernetes-preserve-unknown-fields"
# Published as strings; numbers are taken too.
STRING_OR_NUMBER = ("io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString")

Object = dict[str, Any]


def closed(schema: Any) -> Any:
    """The schema with unknown fields forbidden where it lists the known ones."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(OPEN) and "additionalProperties" not in schema:
        result["additionalProperties"] = False
    return result


@pytest.fixture(scope="module")
def schemas(cluster: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of JSON schemas, one file for each kind that is shipped."""
    directory = tmp_path_factory.mktemp("schemas")
    definitions = closed(cluster.get("/openapi/v2")["definitions"])
    for name in STRING_OR_NUMBER:
        definitions[name] = {"type": ["string", "number"]}
    for name, definition in definitions.items():
        for published in definition.get(PUBLISHED, ()):
            if published["kind"] in NATIVE:
                _write(directory, published, {"$ref": f"#/definitions/{name}", "definitions": definitions})
    for file in (ROOT / "crds").glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            names = {"group": spec["group"], "version": version["name"], "kind": spec["names"]["kind"]}
            _write(directory, names, schema)
    return directory


NATIVE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Deployment",
    "FlowSchema",
    "Namespace",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def _write(directory: Path, published: Object, schema: Object) -> None:
    group = published["group"].partition(".")[0]
    name = "-".join(part for part in (published["kind"], group, published["version"]) if part)
    (directory / f"{name.lower()}.json").write_text(json.dumps(schema))


def conform(schemas: Path, text: str) -> tuple[int, list[Object]]:
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command: list[str | Path] = [find("kubeconform"), "-strict", "-verbose", "-output", "json"]
    command += ["-schema-location", location, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    resources: list[Object] = json.loads(done.stdout)["resources"]
    # What stands before the first separator is a document too, if an empty one, and has no status.
    return done.returncode, [each for each in resources if each["status"]]


def test_the_plain_install_conforms(schemas: Path) -> None:
    text = (ROOT / "manifests" / "install.yaml").read_text()
    code, resources = conform(schemas, text)
    assert code == 0, [each for each in resources if each["status"] != "statusValid"]
    assert len(resources) == sum(document is not None for document in yaml.safe_load_all(text))
    assert {each["status"] for each in resources} == {"statusValid"}


def test_the_chart_with_its_options_conforms(schemas: Path, render: Any) -> None:
    documents = render(
        "networkPolicy.enabled=true",
        "flowSchema.enabled=true",
        "policies.priorities.enabled=true",
        "policies.tenants.enabled=true",
        "watchNamespaces={a,b}",
        *("gateway.enabled=true", "gateway.tlsSecret=tls", "mcp.enabled=true", "mcp.tlsSecret=tls"),
        *("sources.enabled=true", "archive.enabled=true", "archive.dsnSecret.name=db"),
        *("sinks.enabled=true", "sinks.secretNamespaces={c}"),
    )
    code, resources = conform(schemas, yaml.safe_dump_all(documents))
    assert code == 0, [each for each in resources if each["status"] != "statusValid"]
    assert len(resources) == len(documents)


def test_samples_conform(schemas: Path) -> None:
    files = sorted((ROOT / "manifests" / "samples").rglob("*.yaml"))
    code, resources = conform(schemas, "\n---\n".join(file.read_text() for file in files))
    assert code == 0, [each for each in resources if each["status"] != "statusValid"]
    assert len(resources) >= len(files)


BROKEN: dict[str, Object] = {
    "misspelt field": {"metadata": {"name": "a"}, "spec": {"queue": "q", "type": "t", "prioritty": 1}},
    "missing field": {"metadata": {"name": "a"}, "spec": {"queue": "q"}},
    "wrong type": {"metadata": {"name": "a"}, "spec": {"queue": "q", "type": "t", "slots": "two"}},
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_the_check_can_fail(body: Object, schemas: Path) -> None:
    document = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "Task", **body}
    code, resources = conform(schemas, yaml.safe_dump(document))
    assert code != 0
    assert resources[0]["status"] == "statusInvalid"
