"""What is in deploy/ fits the server and itself: settings, flags, ports, paths, names, times. Nothing is run but our own parsers."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from replaystore.server.access.tokens import parse_tokens
from replaystore.settings.loading import load
from replaystore.settings.serving import check_complete, server_options

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GRPC_PORT, METRICS_PORT = 7777, 9464


def documents(path: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m|)", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "m" else 1)


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What `serve` makes of arguments and environment variables, all of which must be its settings; in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def make(arguments: list[str], environment: dict[str, str]) -> Any:
        import typer

        from replaystore.cli.app import app

        command, *flags = arguments
        assert command == "serve"
        serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                if name.startswith("REPLAYSTORE_"):
                    patch.setenv(name, value)
            context = serve.make_context("serve", flags)
            given = {name: value for name, value in context.params.items() if name not in ("json_ready", "print_config", "json")}
            settings = load(given).settings
            check_complete(settings)
            server_options(settings)
        return settings

    return make


def test_everything_parses() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.suffix in (".yml", ".yaml")]
    assert len(files) >= 9
    for path in files:
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text())), path


# -- systemd


class Unit:
    def __init__(self, path: Path) -> None:
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(path.read_text())
        self.sections = {name: dict(parser[name]) for name in parser.sections()}


def test_the_unit_starts_what_there_is_and_gives_it_time(settings_of: Any) -> None:
    unit = Unit(DEPLOY / "systemd/replaystore.service").sections
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/replaystore")
    assert arguments[1:] == ["--config", "/etc/replaystore/replaystore.toml"]
    arguments[2] = str(DEPLOY / "systemd/replaystore.toml")
    settings = settings_of(arguments, {})
    assert settings.path == Path("/var/lib") / service["StateDirectory"]
    assert settings.listen == f"127.0.0.1:{GRPC_PORT}"
    assert settings.metrics == f"127.0.0.1:{METRICS_PORT}"
    assert seconds(service["TimeoutStopSec"]) > settings.grace_s + 30
    assert service["Type"] == "notify"
    assert service["Environment"] == f"NUMBA_CACHE_DIR=/var/cache/{service['CacheDirectory']}"
    assert service["User"] != "root"
    assert "MemoryDenyWriteExecute" not in service  # kernels are compiled


def test_what_stands_in_comments_of_the_toml_are_settings(settings_of: Any, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/replaystore.toml").read_text().replace("# token_file", "token_file").replace("# tls_", "tls_")
    (tmp_path / "all.toml").write_text(text)
    settings = settings_of(["serve", "--config", str(tmp_path / "all.toml")], {})
    assert settings.token_file == Path("/etc/replaystore/tokens.toml")
    assert settings.tls_key is not None


# -- Docker


def instructions() -> Iterator[tuple[str, str]]:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    """The last stage: what its container is."""
    made: dict[str, Any] = {}
    for word, rest in instructions():
        if word == "FROM":
            made = {"ENV": {}}
        elif word == "ENV":
            made["ENV"] |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "HEALTHCHECK":
            options, command = re.fullmatch(r"((?:--\S+ )*)CMD (\[.*\])", rest).groups()  # type: ignore[union-attr]
            made[word] = json.loads(command), dict(option[2:].split("=") for option in options.split())
        elif word in ("CMD", "ENTRYPOINT"):
            made[word] = json.loads(rest)
        else:
            made[word] = rest
    return made


def test_the_image_serves_as_nobody_in_particular(image: dict[str, Any], settings_of: Any) -> None:
    settings = settings_of([*image["ENTRYPOINT"], *image["CMD"]][1:], image["ENV"])
    assert str(settings.path) == image["VOLUME"]
    assert settings.listen == f"0.0.0.0:{GRPC_PORT}"
    assert settings.metrics == f"0.0.0.0:{METRICS_PORT}"
    assert not settings.insecure  # so it does not start before somebody has decided
    assert image["EXPOSE"].split() == [str(GRPC_PORT), str(METRICS_PORT)]
    user, group = image["USER"].split(":")
    assert int(user) > 0 < int(group)
    command, options = image["HEALTHCHECK"]
    assert command == ["replaystore", "health", f"127.0.0.1:{GRPC_PORT}"]
    assert seconds(options["timeout"]) > 5  # which is how long `health` waits
    from replaystore.cli.app import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"serve", "health"} <= set(names)


def test_what_the_image_is_made_of_is_there_and_sent() -> None:
    sources = [part for word, rest in instructions() if word == "COPY" and "--from" not in rest for part in rest.split()[:-1]]
    sent = {line[1:] for line in (DEPLOY / "docker/Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert set(sources) == sent
    for source in sources:
        assert (ROOT / source).exists()
    build = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"packages = \[(.*)\]", build.partition("[tool.hatch.build.targets.wheel]")[2])
    assert packages is not None
    assert {package.strip('" ').split("/")[0] for package in packages.group(1).split(",")} <= sent


def test_compose_fits_the_image_and_its_own_files(image: dict[str, Any], settings_of: Any) -> None:
    (compose,) = documents("docker/compose.yaml")
    here = DEPLOY / "docker"
    server = compose["services"]["replaystore"]
    assert (here / server["build"]["context"] / server["build"]["dockerfile"]).resolve() == here / "Dockerfile"
    settings = settings_of(["serve"], {**image["ENV"], **server["environment"]})
    assert seconds(server["stop_grace_period"]) > settings.grace_s + 20
    assert f"data:{image['VOLUME']}" in server["volumes"]
    assert f"cache:{image['ENV']['NUMBA_CACHE_DIR']}" in server["volumes"]
    assert server["ports"] == [f"127.0.0.1:{GRPC_PORT}:{GRPC_PORT}"]
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name  # nothing is open to others
        assert set(service.get("depends_on", ())) <= compose["services"].keys()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (here / source).exists() if source.startswith(".") else source in compose["volumes"], volume


def test_prometheus_and_grafana_find_what_they_show() -> None:
    (compose,) = documents("docker/compose.yaml")
    services = compose["services"]
    (prometheus,) = documents("prometheus/prometheus.yml")
    targets = [target for job in prometheus["scrape_configs"] for one in job["static_configs"] for target in one["targets"]]
    assert targets == [f"replaystore:{METRICS_PORT}"]
    assert all((DEPLOY / "prometheus" / name).exists() for name in prometheus["rule_files"])
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    assert "../prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    (sources,) = documents("grafana/provisioning/datasources/prometheus.yml")
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    (dashboards,) = documents("grafana/provisioning/dashboards/replaystore.yml")
    folder = dashboards["providers"][0]["options"]["path"]
    volumes = services["grafana"]["volumes"]
    assert f"../grafana/replaystore.json:{folder}/replaystore.json:ro" in volumes
    assert "../grafana/provisioning:/etc/grafana/provisioning:ro" in volumes
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/replaystore.json"


# -- Kubernetes


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as it is needed: lists of things with names, or mount paths, are merged by these."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = {**base, **{name: merged(base.get(name), value) for name, value in patch.items()}}
        return {name: value for name, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list) and all(isinstance(part, dict) for part in (*base, *patch)):
        key = "mountPath" if any("mountPath" in part for part in (*base, *patch)) else "name"
        parts = {part[key]: part for part in base}
        for part in patch:
            parts[part[key]] = merged(parts.get(part[key]), part)
        return list(parts.values())
    return patch


def workload(tls: bool) -> dict[str, Any]:
    (found,) = [document for document in documents("kubernetes/replaystore.yaml") if document["kind"] == "StatefulSet"]
    if tls:
        (patch,) = documents("kubernetes/tls/statefulset.yaml")
        assert (patch["kind"], patch["metadata"]["name"]) == (found["kind"], found["metadata"]["name"])
        found = merged(found, patch)
    return dict(found)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_pod_serves_is_probed_and_is_given_time(image: dict[str, Any], settings_of: Any, tls: bool) -> None:
    pod = workload(tls)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    settings = settings_of(container["args"], {**image["ENV"], **environment})
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in workload(tls)["spec"]["volumeClaimTemplates"]}
    assert set(mounts.values()) == volumes.keys() | claims
    assert mounts[str(settings.path.parent)] in claims
    assert image["ENV"]["NUMBA_CACHE_DIR"] in mounts
    assert mounts[str(settings.token_file.parent)] == "tokens"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "metrics": METRICS_PORT}
    assert (settings.listen, settings.metrics) == (f"0.0.0.0:{GRPC_PORT}", f"0.0.0.0:{METRICS_PORT}")
    assert pod["terminationGracePeriodSeconds"] > settings.grace_s + 30
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(image["USER"].split(":")[0])
    assert settings.insecure != tls
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        if tls:  # probes speak no TLS
            assert "grpc" not in probe
            assert probe["httpGet"]["port"] in ports
            assert probe["httpGet"]["path"] == ("/healthz" if name == "livenessProbe" else "/readyz")
        else:
            assert probe["grpc"] == {"port": ports["grpc"]}
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 1800
    if tls:
        assert mounts[str(settings.tls_cert.parent)] == mounts[str(settings.tls_key.parent)] == "tls"
        assert settings.tls_cert.name == "tls.crt"  # as `kubectl create secret tls` calls it
        assert settings.tls_key.name == "tls.key"
    for volume in volumes.values():
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440  # a token file that others can read is refused


def test_names_of_the_cluster_fit() -> None:
    parts = {document["kind"]: document for document in documents("kubernetes/replaystore.yaml")}
    labels = parts["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert parts["StatefulSet"]["spec"]["selector"]["matchLabels"] == labels == parts["Service"]["spec"]["selector"]
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert parts["StatefulSet"]["spec"]["serviceName"] == parts["Service"]["metadata"]["name"]
    assert parts["StatefulSet"]["spec"]["replicas"] == 1
    assert {port["name"]: port["port"] for port in parts["Service"]["spec"]["ports"]} == {"grpc": GRPC_PORT, "metrics": METRICS_PORT}
    for folder in ("kubernetes", "kubernetes/tls"):
        (kustomization,) = documents(f"{folder}/kustomization.yaml")
        for resource in (*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", ()))):
            assert (DEPLOY / folder / resource).exists()


def test_the_example_of_tokens_is_one() -> None:
    (secret,) = documents("kubernetes/tokens.example.yaml")
    pod = workload(tls=False)["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tokens"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    ((name, text),) = secret["stringData"].items()
    assert pod["containers"][0]["args"][-1].endswith(f"/{name}")
    callers = parse_tokens(text, "the example")
    assert {caller.name for caller in callers} == {"learner", "actors"}
