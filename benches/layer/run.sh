#!/usr/bin/env bash
# What a span costs: with our layer on tracing's registry, with it alone, with fastrace's local span, with tracing's fmt
# layer; and what an enter and an exit cost. Then what recording leaves of the throughput of every stack, on against off.
# Called by `just bench-layer`; options: --rounds N. What is measured, and how, is written in
# recorder/examples/layer_bench.rs and benches/stacks/main.rs.
set -euo pipefail
cd "$(dirname "$0")/../.."
# The whole workspace's features, as every other build here: with -p alone, dependencies would be compiled a second time.
cargo build --release --quiet --workspace --locked --bin regauge --example layer_bench --example bench-stacks
target="${CARGO_TARGET_DIR:-target}/release"
"$target/examples/layer_bench" "$@"
# The disk under the repository is measured, not a tmpfs.
mkdir -p studies/bench
"$target/examples/bench-stacks" layer --regauge "$target/regauge" --dir studies/bench "$@"
