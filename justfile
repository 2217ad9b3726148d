# What a person types. `just` alone lists the recipes.
# Everything builds with one profile (release) and for the whole workspace: another selection of packages would select
# other features, and compile RocksDB and polars once more.

set positional-arguments

cargo := "cargo"
regauge := env("CARGO_TARGET_DIR", justfile_directory() / "target") / "release/regauge"
venv := env("XDG_CACHE_HOME", env("HOME") / ".cache") / "regauge/venv"

# List the recipes
default:
    @just --list --unsorted

# The main job: record, replay on every stack, report (three minutes after the build; `just study` alone is --quick)
study *args="--quick": build
    "{{regauge}}" study "$@"

# The tests of everything: format, lints, unit and integration tests, notebooks
test: check-format lint _test-tools
    {{cargo}} test --release --workspace --locked --no-fail-fast
    just test-agreement
    just notebooks-check

# Does wake → poll agree with tokio's own schedule latency? Alone, because tokio would carry that feature's cost in the
# arms too if the workspace had it; RocksDB is not compiled again for it
test-agreement: _build-tools
    {{cargo}} test --release --locked -p regauge-runtimes --features schedule-latency --test stamps agreement

# Build the command
build: _build-tools
    {{cargo}} build --release --workspace --locked

# What CI refuses, without touching the tree
check: check-format lint

# Is the code formatted?
check-format:
    {{cargo}} fmt --all --check

# clippy, warnings are errors
lint: _build-tools
    {{cargo}} clippy --release --workspace --all-targets --locked -- -D warnings

# Mend what can be mended mechanically
fix: _build-tools
    {{cargo}} clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
    {{cargo}} fmt --all

# Licences, advisories and duplicates of the dependencies (needs cargo-deny)
deny:
    {{cargo}} deny check

# Execute the notebooks on a study and open them in JupyterLab
notebooks study: _notebook-tools
    notebooks/run.sh "{{study}}"
    "{{venv}}/bin/pip" install --quiet --disable-pip-version-check jupyterlab==4.6.6
    env -u REGAUGE_STUDY "{{venv}}/bin/jupyter" lab --notebook-dir "{{study}}/notebooks"

# Execute the notebooks on the committed study
notebooks-check: _notebook-tools
    notebooks/run.sh notebooks/sample-study "$(mktemp -d)"

# Send-time error and rate of the driver, beside a public MQTT load tool
bench-driver *args: build _test-tools
    benches/driver/run.sh "$@"

# Latency and throughput of Mosquitto with and without the tap
bench-tap *args: build _test-tools
    benches/tap/run.sh "$@"

# What a recorded span costs, beside fastrace and tracing's fmt layer; and what recording leaves of every stack's rate
bench-layer *args: _build-tools
    benches/layer/run.sh "$@"

# QoS 1 publishes/s of every stack, beside Mosquitto, rumqttd and fio
bench-stacks *args: build _test-tools
    benches/stacks/run.sh "$@"

# What the stamps cost: ns per wake and poll on every runtime, and throughput of every stack, on against off
bench-stamps *args: build
    benches/stamps/run.sh "$@"

# 5,000 concurrent connections on every stack
bench-connections *args: build
    benches/connections/run.sh "$@"

# client_write/s of the meta-service's core, beside a bare openraft loop, on every runtime
bench-raft *args: _build-tools
    benches/raft/run.sh "$@"

# The percentile table of 100 million raw samples, beside DuckDB and pandas; from histograms; the report of a large study
bench-analysis *args: build _notebook-tools
    benches/analysis/run.sh "$@"

# How often intervals cover the truth and verdicts are right, by simulation (tables of METHODOLOGY.md; half an hour)
coverage repetitions="500": _build-tools
    COVERAGE_REPETITIONS="{{repetitions}}" {{cargo}} test --release --workspace --locked --test coverage -- --ignored --nocapture --test-threads 1

# kill -9 during load, 50 times per stack: no acknowledged proposal may be lost
torture-raft rounds="50": _build-tools
    TORTURE_ROUNDS="{{rounds}}" {{cargo}} test --release --workspace --locked --test torture -- --nocapture --test-threads 1

# What the C++ of RocksDB and bindgen need
_build-tools:
    @tools/need.sh g++:g++ make:make clang:clang libclang:libclang-dev

# Real MQTT brokers, clients and fio to compare with, and a browser to look at the report
_test-tools:
    @tools/need.sh mosquitto:mosquitto mosquitto_pub:mosquitto-clients fio:fio python3:python3 venv:python3-venv chromium:chromium

_notebook-tools:
    @tools/need.sh python3:python3 venv:python3-venv
