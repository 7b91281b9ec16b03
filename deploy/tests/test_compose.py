"""The image and the compose files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

HADOLINT = Path(sys.executable).with_name("hadolint")
IMAGES = ["Dockerfile", "Dockerfile.cuda"]
FILES = [["docker-compose.yml"], ["docker-compose.yml", "docker-compose.gpu.yml"]]


@pytest.fixture(scope="session")
def compose(root):
    return yaml.safe_load((root / "docker-compose.yml").read_text())


@pytest.mark.parametrize("files", FILES, ids=["cpu", "gpu"])
def test_compose_takes_the_files(root, files):
    arguments = [argument for file in files for argument in ("--file", file)]
    done = subprocess.run(
        ["docker-compose", *arguments, "config"], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    reserved = services["mixfeed"].get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    assert bool(reserved) == (len(files) == 2)
    dockerfile = "deploy/Dockerfile.cuda" if reserved else "deploy/Dockerfile"
    # The image with the executor.
    assert services["mixfeed"]["build"]["dockerfile"] == dockerfile
    assert services["mixfeed"]["environment"].get("MIXFEED_DEVICE") == ("auto" if reserved else None)


def test_there_is_no_top_level_name(compose):
    assert "name" not in compose, "compose 1.29 refuses it"


def test_every_service_is_locked_down_and_watched(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), f"{name}: a fixed tag"
        assert service["healthcheck"]["test"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_health_is_asked_with_our_own_program(compose):
    for name in ("mixfeed", "trainer"):
        assert compose["services"][name]["healthcheck"]["test"] == ["CMD", "mixfeed", "healthcheck"]


def test_trainer_starts_on_demand_only(compose):
    optional = {name for name, service in compose["services"].items() if service.get("profiles")}
    assert optional == {"trainer"}


def test_a_stop_takes_longer_than_the_drain(compose, root):
    drain = tomllib.loads((root / "deploy/mixfeed.toml").read_text())["server"]["drain_timeout"]
    assert int(compose["services"]["mixfeed"]["stop_grace_period"].removesuffix("s")) > drain


def test_state_and_data_of_the_config_are_mounted(compose, root):
    config = tomllib.loads((root / "deploy/mixfeed.toml").read_text())
    mounts = [volume.split(":")[1] for volume in compose["services"]["mixfeed"]["volumes"]]
    for path in [config["server"]["state"], *(source["path"] for source in config["sources"].values())]:
        assert any(Path(path).is_relative_to(mount) for mount in mounts), path


def test_config_of_the_image_is_accepted(program, root, tmp_path):
    text = (root / "deploy/mixfeed.toml").read_text()
    local = text.replace('"/data/photos"', f'"{root}/demo-data/photos"').replace("/var/lib/mixfeed", str(tmp_path))
    (tmp_path / "mixfeed.toml").write_text(local)
    done = subprocess.run(
        [program, "check", "--config", tmp_path / "mixfeed.toml"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_image_passes_the_linter(root, image):
    done = subprocess.run(
        [HADOLINT, "--failure-threshold", "info", root / "deploy" / image], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_no_tools_and_no_root(root, image):
    final = re.split(r"^FROM ", (root / "deploy" / image).read_text(), flags=re.M)[-1]
    assert not {"apt-get", "cargo", "pip"} & set(re.findall(r"[\w-]+", final))
    assert re.search(r"^USER [1-9]\d*$", final, re.M), "a number, so that Kubernetes can tell that it is not root"


def test_layer_of_dependencies_fits_the_manifests(root, tmp_path):
    """The empty sources of the Dockerfile are what cargo wants to see, or the image would not build."""
    text = (root / "deploy/Dockerfile").read_text()
    script = re.search(r"^RUN (mkdir .*?)\n\n", text, re.M | re.S)[1].replace("\\\n", "")
    build = "cargo build --release --locked --package mixfeed-server --bin mixfeed"
    assert build in script
    for line in re.findall(r"^COPY (?!--from|\. )(.*)$", text[: text.index(build)], re.M):
        *files, folder = line.split()
        for file in files:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / Path(file).name).write_bytes((root / file).read_bytes())
    asked = "cargo metadata --locked --offline --no-deps --format-version 1"
    command = ["bash", "-euo", "pipefail", "-c", script.replace(build, asked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
