#!/usr/bin/env bash
# What the stamps cost: per wake and poll on every runtime, and of the throughput of every stack. Arguments go to both.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --workspace --locked --example bench-stamps
target="${CARGO_TARGET_DIR:-target}/release"
# The disk under the repository is measured, not a tmpfs.
mkdir -p studies/bench
"$target/examples/bench-stamps" cycles "$@"
"$target/examples/bench-stamps" rates --dir studies/bench "$@"
