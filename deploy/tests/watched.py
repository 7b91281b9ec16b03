"""A real server under load, a real Prometheus that scrapes it and a real Alertmanager, on free ports."""

import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import grpc
import yaml
from load import CONFIG, Load
from promql import DEPLOY, rule_files

SECONDS_TO_START = 120
SECONDS_TO_STOP = 60
#: The longest that anything is waited for; all of it together takes a few seconds on an idle machine.
SECONDS = 90
#: What ranges and waits of the rules become.
WINDOW = "6s"
SCRAPE = "1s"
BROKEN = 8


def until(what, found, seconds=SECONDS):
    """Asks `found` until it returns something; fails with `what` and the last answer when it does not."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} (after {seconds} s)"
        time.sleep(0.1)
    return answer


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.read().decode()


def shorten(text):
    """Rules with ranges and waits of seconds."""
    text = re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", text)
    text = re.sub(r"offset \d+[mh]", f"offset {WINDOW}", text)
    text = re.sub(r"^( +for): \d+[mh]$", r"\1: 1s", text, flags=re.M)
    return re.sub(r"^( +interval): \d+[mh]$", r"\1: 1s", text, flags=re.M)


class Watched:
    def __init__(self, root, program, folder):
        self.root, self.program, self.folder, self.processes = root, program, folder, {}

    def __enter__(self):
        try:
            self.start_server()
            self.start_alertmanager()
            self.start_prometheus()
            self.load = Load(self.program, self.addresses["grpc"][0], self.channel)
            self.load.__enter__()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.load.__exit__()
            self.stop_server()
        finally:
            self.kill()

    def kill(self):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, name, *command):
        log = (self.folder / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        log.close()

    def ready(self, name, found):
        def alive():
            code = self.processes[name].poll()
            assert code is None, f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()}"
            try:
                return found()
            except OSError:
                return None

        return until(
            lambda: f"{name} is not ready: {(self.folder / f'{name}.log').read_text()}", alive, SECONDS_TO_START
        )

    def start_server(self):
        demo, ready = self.root / "demo-data", self.folder / "ready.json"
        self.photos = self.folder / "photos"
        shutil.copytree(demo / "photos", self.photos)
        for i in range(BROKEN):  # a whole header, no picture
            whole = (demo / f"photos/cat/cat_{i:02}.jpg").read_bytes()
            (self.photos / f"cat/broken_{i}.jpg").write_bytes(whole[: len(whole) // 3])
        (self.folder / "mixfeed.toml").write_text(CONFIG.format(demo=demo))
        self.start("mixfeed", self.program, "serve", "--config", "mixfeed.toml", "--ready-file", ready)
        self.addresses = self.ready("mixfeed", lambda: ready.exists() and json.loads(ready.read_text()))
        self.http = self.addresses["http"].removeprefix("http://")
        self.channel = grpc.insecure_channel(self.addresses["grpc"][0].removeprefix("http://"))

    def stop_server(self):
        """As an operator would; must go well."""
        process = self.processes["mixfeed"]
        if process.poll() is None:
            self.channel.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS_TO_STOP) == 0, (self.folder / "mixfeed.log").read_text()

    def start_alertmanager(self):
        config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        self.alertmanager = f"127.0.0.1:{free_port()}"
        listen = [f"--web.listen-address={self.alertmanager}", "--cluster.listen-address="]
        storage = f"--storage.path={self.folder / 'alertmanager'}"
        self.start("alertmanager", "prometheus-alertmanager", "--config.file=alertmanager.yml", storage, *listen)
        self.ready("alertmanager", lambda: get(f"http://{self.alertmanager}/-/ready"))

    def start_prometheus(self):
        """With our own configuration, but for addresses and seconds."""
        for file in rule_files():
            (self.folder / file.name).write_text(shorten(file.read_text()))
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": "1s"}
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [self.alertmanager]}]}]
        (scrape,) = (job for job in config["scrape_configs"] if job["job_name"] == "mixfeed")
        del scrape["dns_sd_configs"]
        config["scrape_configs"] = [{**scrape, "static_configs": [{"targets": [self.http]}]}]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.prometheus = f"127.0.0.1:{free_port()}"
        storage = f"--storage.tsdb.path={self.folder / 'tsdb'}"
        listen = f"--web.listen-address={self.prometheus}"
        self.start("prometheus", "prometheus", "--config.file=prometheus.yml", storage, listen)
        self.ready("prometheus", lambda: get(f"http://{self.prometheus}/-/ready"))

    def scrape(self):
        """Names of the server's series, and the whole text."""
        text = get(f"{self.addresses['http']}/metrics")
        return set(re.findall(r"^(\w+)[{ ]", text, re.M)), text

    def ask(self, path, **arguments):
        answer = json.loads(get(f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        """Samples of an instant query."""
        return self.ask("query", query=expression)["result"]

    def firing(self, alert):
        alerts = self.ask("alerts")["alerts"]
        return [a for a in alerts if a["labels"]["alertname"] == alert and a["state"] == "firing"]

    def received(self, alert):
        """What Alertmanager knows of an alert."""
        return [a for a in self.alertmanager_alerts() if a["labels"]["alertname"] == alert]

    def alertmanager_alerts(self):
        return json.loads(get(f"http://{self.alertmanager}/api/v2/alerts"))
