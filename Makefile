# The commands of this repository; CI runs `make test` and nothing else.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.NOTPARALLEL:

STOCK := client/tests/stock
VENV := .venv-test
DEPLOY := deploy/tests
DEPLOY_VENV := .venv-deploy
# PyTorch of the release that `tch` is written for: 4.7 GB, on the processor as well as on CUDA devices. The Python
# package is tested in the same environment.
TORCH := torch==2.11.0 numpy==2.4.6
TORCH_VENV := .venv-torch
# The Python package: its tools, and the fresh environment that its wheel is tried in.
PYTHON := client/python
PYTHON_VENV := .venv-python
WHEEL_VENV := .venv-wheel
# What is tested beside the default: traces.
FEATURES := --features mixfeed-server/otel
# The program that deploy/tests start; empty: the one that cargo makes.
MIXFEED ?=

# Runs target $(1) and prints how long it took.
timed = @begin=$$EPOCHREALTIME; $(MAKE) --no-print-directory $(1); \
	awk -v begin="$$begin" -v end="$$EPOCHREALTIME" 'BEGIN { printf "== $(1): %.1f min\n", (end - begin) / 60 }'

.PHONY: setup build python fmt lint test text test-rust test-stock test-python lint-python test-torch lint-torch test-torch-rust build-torch test-deploy deploy-tools doc demo bench bench-gpu clean

# What a fresh Debian with Rust and Python lacks; all of it from package registries.
setup:
	@need=(); \
	command -v cc >/dev/null || need+=(build-essential); \
	command -v cmake >/dev/null || need+=(cmake); \
	command -v nasm >/dev/null || need+=(nasm); \
	command -v openssl >/dev/null || need+=(openssl); \
	python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv); \
	if (( $${#need[@]} )); then \
		if (( $$(id -u) )); then echo "install first: $${need[*]}" >&2; exit 1; fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${need[@]}" </dev/null; \
	fi
	@cargo fetch --locked --quiet

# The program, optimised: target/release/mixfeed.
build: setup
	cargo build --release --bin mixfeed

# The Python package, optimised: target/wheels/mixfeed-*.whl, for `pip install`.
python: setup $(PYTHON_VENV)/ready
	$(PYTHON_VENV)/bin/maturin build --release --manifest-path $(PYTHON)/Cargo.toml --out target/wheels

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings

test: setup
	$(call timed,lint)
	$(call timed,test-rust)
	$(call timed,doc)
	$(call timed,test-stock)
	$(call timed,test-python)
	$(call timed,test-torch)
	$(call timed,test-deploy)

test-rust: text
	cargo test --workspace $(FEATURES)

# Groups of real text to learn on, from pinned packages: test-data/text.
text: setup
	@python3 server/tests/text/build.py

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# `--tests` for the features of `cargo test --workspace`: nothing is compiled twice.
test-stock: $(VENV)/ready
	cargo build --workspace --bins --tests $(FEATURES)
	$(VENV)/bin/python -m pytest $(STOCK)

# The wheel in a fresh environment: imported without Rust, torch and NumPy; then its suite, which sees torch.
test-python: setup lint-python $(TORCH_VENV)/ready
	rm -rf target/wheels-dev $(WHEEL_VENV)
	$(PYTHON_VENV)/bin/maturin build --quiet --profile dev --manifest-path $(PYTHON)/Cargo.toml --out target/wheels-dev
	cargo build --workspace --bins --tests --examples $(FEATURES)
	python3 -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-index target/wheels-dev/*.whl
	cd $(WHEEL_VENV) && env -i PATH=/usr/bin:/bin bin/python -W error -c 'import mixfeed; \
		print(mixfeed.__version__, mixfeed.DataLoader("http://127.0.0.1:1", "job"))'
	for venv in $(TORCH_VENV) $(PYTHON_VENV); do realpath $$venv/lib/python3*/site-packages; done \
		> "$$(echo $(WHEEL_VENV)/lib/python3*/site-packages)/others.pth"
	MIXFEED=$(abspath $(MIXFEED)) MIXFEED_DUMP=$(CURDIR)/target/debug/examples/dump \
		$(WHEEL_VENV)/bin/python -m pytest $(PYTHON)/tests

lint-python: $(PYTHON_VENV)/ready
	$(PYTHON_VENV)/bin/ruff check --quiet $(PYTHON)
	$(PYTHON_VENV)/bin/ruff format --quiet --check $(PYTHON)
	cd $(PYTHON) && $(CURDIR)/$(PYTHON_VENV)/bin/mypy --no-error-summary --cache-dir $(CURDIR)/target/mypy

$(PYTHON_VENV)/ready: $(PYTHON)/requirements.txt
	rm -rf $(PYTHON_VENV)
	python3 -m venv $(PYTHON_VENV)
	$(PYTHON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(VENV)/ready: $(STOCK)/requirements.txt
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Finds libtorch for cargo and for the programs that it starts.
with_torch = PATH="$(CURDIR)/$(TORCH_VENV)/bin:$$PATH" LIBTORCH_USE_PYTORCH=1 \
	LD_LIBRARY_PATH="$$(echo $(CURDIR)/$(TORCH_VENV)/lib/python3*/site-packages/torch/lib)"

# The libtorch executor, on the processor; MIXFEED_TORCH_DEVICE=cuda:0 takes the conformance tests to a device.
test-torch: setup
	$(call timed,$(TORCH_VENV)/ready)
	$(call timed,lint-torch)
	$(call timed,test-torch-rust)

lint-torch: $(TORCH_VENV)/ready
	$(with_torch) cargo clippy --package mixfeed-server --all-targets --features otel,libtorch -- -D warnings

test-torch-rust: $(TORCH_VENV)/ready
	$(with_torch) cargo test --package mixfeed-server --features otel,libtorch --lib -- exec:: plan:: job::
	$(with_torch) cargo test --package mixfeed-server --features otel,libtorch \
		--test device --test learned --test points --test refused

# The program with the libtorch executor: target/release/mixfeed. It finds libtorch by LD_LIBRARY_PATH.
build-torch: setup $(TORCH_VENV)/ready
	$(with_torch) cargo build --release --bin mixfeed --features libtorch

$(TORCH_VENV)/ready:
	rm -rf $(TORCH_VENV)
	python3 -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir $(TORCH)
	touch $@

# Rules, dashboards, compose files and chart, and a real Prometheus on a real server.
test-deploy: $(DEPLOY_VENV)/ready deploy-tools
	$(if $(MIXFEED),,cargo build --workspace --bins --tests $(FEATURES))
	MIXFEED=$(MIXFEED) $(DEPLOY_VENV)/bin/python -m pytest $(DEPLOY)

# The services that deploy/tests start or ask, from Debian; nothing of them is started here.
deploy-tools:
	@need=(); \
	command -v promtool >/dev/null || need+=(prometheus); \
	command -v amtool >/dev/null || need+=(prometheus-alertmanager); \
	command -v docker-compose >/dev/null || need+=(docker-compose); \
	command -v chromium >/dev/null || need+=(chromium fonts-dejavu-core); \
	if (( $${#need[@]} )); then \
		if (( $$(id -u) )); then echo "install first: $${need[*]}" >&2; exit 1; fi; \
		apt-get update -qq; \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends "$${need[@]}" </dev/null; \
	fi

$(DEPLOY_VENV)/ready: $(DEPLOY)/requirements.txt $(DEPLOY)/helm.txt $(DEPLOY)/fetch_helm.py
	rm -rf $(DEPLOY_VENV)
	python3 -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	$(DEPLOY_VENV)/bin/python $(DEPLOY)/fetch_helm.py $(DEPLOY_VENV)/bin/helm
	touch $@

# Pictures of what the server sends: demo/*.png.
demo: build
	target/release/mixfeed demo --out demo
	target/release/mixfeed demo --mixture --out demo
	target/release/mixfeed demo --points --out demo

# Speed against other loaders: bench.jsonl. BENCH="--quick --only NAME,..." narrows it.
bench: build
	python3 server/benches/bench.py $(BENCH)

# Checks and timings of the libtorch executor for a machine with a GPU, in gpu-bench/: run here if this machine is one.
# Elsewhere: carry the folder there, and run its gpu.py with a Python that has PyTorch 2.11.0.
bench-gpu: setup $(TORCH_VENV)/ready
	$(with_torch) server/benches/pack_gpu.sh gpu-bench $(TORCH_VENV)/bin/python
	if $(TORCH_VENV)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(TORCH_VENV)/bin/python gpu-bench/gpu.py --out gpu.jsonl; \
	else \
		echo "no GPU here; on a machine with one: python3 gpu-bench/gpu.py"; \
	fi

clean:
	cargo clean
	rm -rf demo bench.jsonl bench-data gpu-bench gpu.jsonl .venv-test .venv-deploy .venv-torch .venv-python .venv-wheel .venv-bench test-data
