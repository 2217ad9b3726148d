#!/bin/sh
# What the tap costs in front of a private Mosquitto: latency and throughput, directly and through it, interleaved.
# Called by `just bench-tap`; options: --rounds N, --spin-us N, --quick. What is measured, and how, is written in
# recorder/examples/tap_bench/main.rs.
set -eu
cd "$(dirname "$0")/../.."
if ! PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v mosquitto >/dev/null; then
    echo "mosquitto is not installed: apt-get install mosquitto" >&2
    exit 1
fi
# The whole workspace's features, as every other build here: with -p alone, dependencies would be compiled a second time.
cargo build --release --quiet --workspace --example tap_bench
exec "${CARGO_TARGET_DIR:-target}/release/examples/tap_bench" "$@"
