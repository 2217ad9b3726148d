#!/bin/sh
# What a span costs: with our layer on tracing's registry, with it alone, with fastrace's local span, with tracing's fmt
# layer; and what an enter and an exit cost. Called by `just bench-layer`; options: --rounds N. What is measured, and how,
# is written in recorder/examples/layer_bench.rs.
set -eu
cd "$(dirname "$0")/../.."
# The whole workspace's features, as every other build here: with -p alone, dependencies would be compiled a second time.
cargo build --release --quiet --workspace --example layer_bench
exec "${CARGO_TARGET_DIR:-target}/release/examples/layer_bench" "$@"
