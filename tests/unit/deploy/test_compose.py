"""compose.yaml and the one Dockerfile, held against the code: no container engine is needed."""

import importlib.util
import re
import shlex

import pytest
from everloop.stack import StackSettings
from unit.deploy.platform_files import (
    RECORDERS,
    ROOT,
    SERVICES,
    compose,
    dockerfile,
    filled_in,
    settings_of,
    variables_in,
    variables_of,
)

ALL = compose()["services"]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN(?!S?_FILE)")


def test_everything_that_is_promised_is_there() -> None:
    """Who runs `docker compose up` must get the whole platform."""
    assert set(SERVICES) < set(ALL)
    images = {name: ALL[name]["image"] for name in ("kafka", "postgres", "jaeger", "prometheus", "grafana")}
    assert images["kafka"] == "apache/kafka:4.3.1"
    assert images["postgres"].startswith("postgres:18")
    assert images["jaeger"].startswith("jaegertracing/jaeger:2.")
    assert all(":" in image and not image.endswith(":latest") for image in images.values())


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_setting(service: str) -> None:
    """A variable that no settings class reads is a wish that nobody hears."""
    environment = ALL[service]["environment"]
    ours = {name for name in environment if name.startswith("EVERLOOP_")}
    assert ours <= variables_of(settings_of(service))
    assert environment.keys() - ours <= ({"PGPASSWORD"} if service in RECORDERS else set())


@pytest.mark.parametrize("service", SERVICES)
def test_values_fit_the_settings(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container must listen where its port is published, and beyond its own loopback."""
    for name, value in ALL[service]["environment"].items():
        monkeypatch.setenv(name, filled_in(value))
    own, kafka, platform = (one() for one in settings_of(service)[:3])
    published = {int(filled_in(port).rsplit(":", 1)[1]) for port in ALL[service]["ports"]}
    assert own.http_host == "0.0.0.0"  # inside the container's own network
    assert published == {own.http_port, *([own.grpc_port] if service == "serving" else [])}
    assert kafka.bootstrap_servers == "kafka:9092"
    assert platform.otlp_endpoint == "http://jaeger:4318"
    assert platform.tokens_file is not None


@pytest.mark.parametrize("name", ["topics", "token"])
def test_tools_are_told_what_they_read(name: str) -> None:
    """The steps beside the services run the kernel's own module with the kernel's settings."""
    assert ALL[name]["entrypoint"][:3] == ["python3", "-m", "everloop_kernel.prepare"]
    assert importlib.util.find_spec("everloop_kernel.prepare") is not None
    assert set(ALL[name]["environment"]) <= variables_of(settings_of("registry"))


@pytest.mark.parametrize("name", sorted(ALL))
def test_ports_are_the_loopback_s(name: str) -> None:
    """A laptop in a café must not offer its Kafka to the room."""
    assert all(str(port).startswith("127.0.0.1:") for port in ALL[name].get("ports", []))


def test_ports_are_changed_as_for_the_embedded_stack() -> None:
    """One name and one default for a port, however the platform is run."""
    known = {
        StackSettings.variable(name): str(StackSettings.model_fields[name].default)
        for name in StackSettings.model_fields
    }
    used = {
        v[0]: v[2]
        for service in ALL.values()
        for port in service.get("ports", [])
        for v in variables_in(port)
    }
    assert {name: port for name, port in used.items() if name.startswith("EVERLOOP_")} == {
        name: known[name] for name in known if name.endswith("_PORT")
    }


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_password_has_a_default(name: str) -> None:
    """Whoever forgets to choose a password must be told so, not be given everybody's."""
    for variable, value in ALL[name].get("environment", {}).items():
        if SECRET.search(variable):
            ((_, kind, message),) = variables_in(value)
            assert (kind, filled_in(value)[0]) == ("?", "<")
            assert ".env.example" in message


def test_every_required_variable_is_explained() -> None:
    """`.env.example` must be enough to start with, and hold no value that works everywhere."""
    example = (ROOT / ".env.example").read_text()
    text = (ROOT / "compose.yaml").read_text()
    for name, kind, default in set(variables_in(text)):
        if kind == "?":
            assert re.search(rf"^{name}=$", example, re.MULTILINE), name
        else:
            assert re.search(rf"^# {name}={re.escape(default or '')}$", example, re.MULTILINE), name
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", sorted(ALL))
def test_everything_that_stays_is_watched(name: str) -> None:
    """Without a health check an order of start means nothing. Ours comes with the image."""
    if "healthcheck" in ALL[name]:
        assert ALL[name]["healthcheck"].get("test") or name in {"topics", "token"}
    else:
        assert name in SERVICES


@pytest.mark.parametrize("name", sorted(ALL))
def test_start_waits_for_what_is_needed(name: str) -> None:
    """A service that starts before its topics exist dies and is restarted until they do."""
    needs = ALL[name].get("depends_on", {})
    assert all(need["condition"] != "service_started" for need in needs.values())
    if name in SERVICES:
        assert {"kafka", "topics"} <= set(needs)
        assert ("postgres" in needs) == (name in RECORDERS)


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_no_more_rights_than_it_needs(service: str) -> None:
    """A hole in one service must not become the host's."""
    about = ALL[service]
    assert about["read_only"] is True
    assert about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in about
    assert "user" not in about  # the image's


def test_only_serving_and_the_registry_share_keys_and_serving_cannot_write() -> None:
    """Who can add a trusted key can have any model served; the private half stays with the registry."""
    mounts = {name: about.get("volumes", []) for name, about in ALL.items()}
    assert {name for name, lines in mounts.items() if any(line.startswith("keys:") for line in lines)} == {
        "registry",
        "serving",
    }
    assert "keys:/var/lib/everloop/keys:ro" in mounts["serving"]
    assert ALL["serving"]["environment"]["EVERLOOP_SERVING_TRUSTED_KEYS_DIR"] == "/var/lib/everloop/keys"
    assert not any(
        line.startswith("registry:") for name in SERVICES if name != "registry" for line in mounts[name]
    )


def test_tokens_are_written_by_one_and_read_by_all() -> None:
    """A service that could write the tokens file could let in whom it likes."""
    for name in SERVICES:
        assert "tokens:/etc/everloop:ro" in ALL[name]["volumes"]
    assert ALL["token"]["volumes"] == ["tokens:/etc/everloop"]
    assert ALL["token"]["profiles"] == ["tools"]


def test_named_volumes_and_mounted_files_exist() -> None:
    """A missing file becomes an empty folder in the container, and the cause is hard to find."""
    volumes = set(compose()["volumes"])
    for about in ALL.values():
        for line in about.get("volumes", []):
            source = line.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes, line
    used = {line.split(":")[0] for about in ALL.values() for line in about.get("volumes", [])}
    assert volumes <= used


@pytest.mark.parametrize("service", SERVICES)
def test_images_come_from_the_one_dockerfile(service: str) -> None:
    """Six Dockerfiles that differ in one word drift apart."""
    build = ALL[service]["build"]
    assert (build["context"], build["dockerfile"]) == (".", "deploy/Dockerfile")
    assert build["args"]["SERVICE"] == service
    assert (
        filled_in(build["args"]["BASE"])
        == dict(a.split("=", 1) for w, a in dockerfile() if w == "ARG" and "=" in a)["BASE"]
    )


@pytest.mark.parametrize("service", SERVICES)
def test_copied_paths_exist_in_the_context(service: str) -> None:
    """A path that is missing, or ignored, breaks the build on the next machine only."""
    open_folders = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    for word, arguments in dockerfile():
        if word == "COPY" and "--from" not in arguments:
            *sources, _ = shlex.split(arguments.replace("${SERVICE}", service))
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in open_folders, source


def test_image_runs_without_rights_and_is_process_one() -> None:
    """root in a container is root on the host after one mistake; a shell as process 1 swallows SIGTERM."""
    last = dict(dockerfile())
    assert last["USER"].isdecimal()
    assert int(last["USER"]) > 0
    assert f"--uid {last['USER']} " in " ".join(a for w, a in dockerfile() if w == "RUN")
    assert last["ENTRYPOINT"] == '["sh", "-c", "exec python3 -m everloop_${EVERLOOP_SERVICE}"]'
    assert "everloop_kernel.healthcheck" in last["HEALTHCHECK"]
    assert importlib.util.find_spec("everloop_kernel.healthcheck") is not None


def test_image_installs_by_hash_alone() -> None:
    """What is built today and what is built next year must be the same bytes."""
    runs = [a for w, a in dockerfile() if w == "RUN"]
    installs = [part for run in runs for part in re.split(r"&&|;", run) if "pip install" in part]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or ("--no-deps" in install and "--offline" in install), install


def test_image_s_own_variables_are_settings_and_hold_no_secret() -> None:
    """An image is public: what it sets must be read by someone and be nobody's secret."""
    (environment,) = [a for w, a in dockerfile() if w == "ENV"]
    names = {pair.split("=", 1)[0] for pair in shlex.split(environment)}
    ours = {name for name in names if name.startswith("EVERLOOP_")} - {"EVERLOOP_SERVICE"}
    for service in SERVICES:
        assert ours <= variables_of(settings_of(service))
    assert not any(SECRET.search(name) for name in names)
