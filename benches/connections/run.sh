#!/usr/bin/env bash
# 5,000 concurrent connections on every stack, one QoS 1 publish on each.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --workspace --locked --example bench-stacks
target="${CARGO_TARGET_DIR:-target}/release"
mkdir -p studies/bench
"$target/examples/bench-stacks" connections --regauge "$target/regauge" --dir studies/bench --clients 5000 "$@"
