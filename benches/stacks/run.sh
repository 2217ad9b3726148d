#!/usr/bin/env bash
# QoS 1 publishes/s: durability `none` beside Mosquitto and rumqttd, then `fdatasync` beside fio. Arguments go to both.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/regauge"
rumqttd="$cache/peers/bin/rumqttd"
if [ ! -x "$rumqttd" ]; then
  # Not --locked: the lock file of that release names a crate that no longer compiles.
  echo "building rumqttd once, into $cache/peers" >&2
  CARGO_TARGET_DIR="$cache/peers/target" cargo install rumqttd --version 0.20.0 --quiet --root "$cache/peers"
fi
cargo build --release --workspace --locked --example bench-stacks
target="${CARGO_TARGET_DIR:-target}/release"
# The disk under the repository is measured, not a tmpfs.
mkdir -p studies/bench
"$target/examples/bench-stacks" rates --regauge "$target/regauge" --rumqttd "$rumqttd" --dir studies/bench "$@"
"$target/examples/bench-stacks" sync --regauge "$target/regauge" --dir studies/bench "$@"
