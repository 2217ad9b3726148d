#!/usr/bin/env bash
# client_write/s of the meta-service's core beside a bare openraft loop. Arguments go to the harness (`--quick`).
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --workspace --locked --example bench-raft
# The disk under the repository is measured, not a tmpfs.
mkdir -p studies/bench
"${CARGO_TARGET_DIR:-target}/release/examples/bench-raft" --dir studies/bench "$@"
