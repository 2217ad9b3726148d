#!/usr/bin/env bash
# Our driver beside `mqttv5 bench`, interleaved; the other tool is built once, into the cache directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/regauge"
tool="$cache/peers/bin/mqttv5"
if [ ! -x "$tool" ]; then
  echo "building mqttv5-cli once, into $cache/peers" >&2
  CARGO_TARGET_DIR="$cache/peers/target" cargo install mqttv5-cli --version 0.29.10 --quiet --root "$cache/peers"
fi
exec python3 benches/driver/bench.py --tool "$tool" "$@"
