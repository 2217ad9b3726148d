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
exec cargo run --release --quiet -p regauge-recorder --example tap_bench -- "$@"
