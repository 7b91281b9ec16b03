"""The chart: helm's checks, Kubernetes' schemas, and that it says what compose says."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from promql import DEPLOY, ROOT, alerts, boards, recorded

HELM = Path(sys.executable).with_name("helm")
CHART = DEPLOY / "helm/mixfeed"
VERSIONS = ["1.30", "1.35"]
ALL = ["serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboards.enabled=true"]
SECURED = ["tls.existingSecret=cert", "tls.clientCaSecret=clients", "tokens.existingSecret=tokens"]
LIMITED = [
    *(f"server.limits.{key}=90" for key in ["connections", "connectionsPerPeer", "streamsPerConnection"]),
    *(f"server.limits.{key}=90" for key in ["firstRequest", "requestTimeout", "callTimeout", "idleTimeout"]),
    *(f"server.limits.{key}=90" for key in ["stallTimeout", "controlFrames"]),
    "server.limits.headerBytes=32KiB",
    "server.limits.requestMemory=1073741824",
    "server.pagePictures=false",
]
CASES = {
    "defaults": [],
    "secured": SECURED,
    "limited": LIMITED,
    "several": [*ALL, "autoscaling.enabled=true"],
    "state": [*ALL, "persistence.enabled=true", "persistence.storageClass=fast", "server.memory=1073741824"],
}


def helm(*arguments):
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=120)


def render(settings, *more):
    done = helm("template", "feed", CHART, *(part for setting in settings for part in ("--set", setting)), *more)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of(documents, kind):
    return [document for document in documents if document["kind"] == kind]


@pytest.fixture(scope="session")
def everything():
    return render([*ALL, "autoscaling.enabled=true"])


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_lint(settings):
    done = helm("lint", "--strict", CHART, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_kubernetes_takes_it(settings, version):
    documents = render(settings, "--kube-version", version)
    own = [document for document in documents if not document["apiVersion"].startswith("monitoring.coreos.com/")]
    assert len(own) >= 4
    for document in own:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        "replicas=0",
        "server.memory=lots",
        "server.threats=2",
        "server.limits.connection=90",
        "server.limits.controlFrames=9",
        "server.limits.idleTimeout=1h",
        "server.pagePictures=many",
        "autoscaling.targetStreams=0",
        "persistence.enabled=true,replicas=2",
        "tls.clientCaSecret=clients",
        "tokens.key=a/b",
    ],
)
def test_wrong_values_are_refused(wrong):
    assert helm("template", "feed", CHART, "--set", wrong).returncode != 0


def test_a_second_server_table_is_refused(tmp_path):
    (tmp_path / "values.yaml").write_text("config: |\n  [server]\n  threads = 2\n")
    assert helm("template", "feed", CHART, "--values", tmp_path / "values.yaml").returncode != 0


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_the_program_takes_its_config(settings, program, tmp_path):
    (config,) = (m for m in of(render(settings), "ConfigMap") if "mixfeed.toml" in m["data"])
    text = config["data"]["mixfeed.toml"].replace("/var/lib/mixfeed", str(tmp_path))
    assert tomllib.loads(text)["server"]["drain_timeout"] == 30
    (tmp_path / "mixfeed.toml").write_text(text)
    done = subprocess.run(
        [program, "check", "--config", tmp_path / "mixfeed.toml"], capture_output=True, text=True, timeout=60
    )
    if settings is SECURED:
        assert "cannot read token file `/etc/mixfeed-tokens/tokens.toml`" in done.stderr, "the rest was taken"
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_limit_can_be_set():
    (config,) = (m for m in of(render(LIMITED), "ConfigMap") if "mixfeed.toml" in m["data"])
    server = tomllib.loads(config["data"]["mixfeed.toml"])["server"]
    source = (ROOT / "server/src/config/limits.rs").read_text()
    keys = set(re.findall(r"^    pub (\w+):", source.split("pub struct Limits {")[1].split("\n}")[0], re.M))
    sizes = {"header_bytes": "32KiB", "request_memory": 1 << 30}
    assert server["limits"] == dict.fromkeys(keys, 90) | sizes
    assert server["page_pictures"] is False


def test_secrets_are_mounted_where_the_config_reads_them():
    documents = render(SECURED)
    (config,) = (m for m in of(documents, "ConfigMap") if "mixfeed.toml" in m["data"])
    server = tomllib.loads(config["data"]["mixfeed.toml"])["server"]
    (deployment,) = of(documents, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"tls": "cert", "client-ca": "clients", "tokens": "tokens"}
    assert all(mounts[name]["readOnly"] for name in secrets)
    for name, path in {
        "tls": server["tls"]["cert"],
        "client-ca": server["tls"]["client_ca"],
        "tokens": server["tokens"],
    }.items():
        assert path.startswith(mounts[name]["mountPath"] + "/"), name
    assert "allow_plaintext" not in server
    probe = container["readinessProbe"]["exec"]["command"]
    assert probe[-1] in server["listen"] and probe[-1].startswith("unix:" + mounts["run"]["mountPath"])


def test_pods_are_locked_down_and_get_time_to_drain(everything):
    (deployment,) = of(everything, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > 30 and pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["readinessProbe"]["grpc"] == {"port": 7443}


def test_service_is_headless_and_selects_the_pods(everything):
    (service,), (deployment,) = of(everything, "Service"), of(everything, "Deployment")
    assert service["spec"]["clusterIP"] == "None"
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels


def test_autoscaler_reads_a_metric_that_exists(everything):
    from promql import families

    (scaler,) = of(everything, "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in families()
    assert "replicas" not in of(everything, "Deployment")[0]["spec"], "it would fight the autoscaler"


def test_monitor_keeps_the_labels_that_the_rules_expect(everything):
    (monitor,) = of(everything, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert endpoint["honorLabels"] is scrape["honor_labels"] is True
    assert {"targetLabel": "job", "replacement": scrape["job_name"]} in endpoint["relabelings"]


def test_rules_and_dashboards_are_the_ones_of_compose(everything):
    rules = [rule for m in of(everything, "PrometheusRule") for group in m["spec"]["groups"] for rule in group["rules"]]
    assert [rule for rule in rules if "alert" in rule] == alerts()
    assert [rule["record"] for rule in rules if "record" in rule] == recorded()
    (config,) = (m for m in of(everything, "ConfigMap") if m["metadata"]["name"].endswith("-dashboards"))
    assert {f"mixfeed-{name}": board for name, board in boards().items()} == {
        k: json.loads(v) for k, v in config["data"].items()
    }
