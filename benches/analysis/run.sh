#!/usr/bin/env bash
# The percentile table of many raw samples, beside DuckDB and pandas; then from histograms; then the report of a study.
# The data set (1.4 GB at 100 million samples) stays under studies/bench for the next time. Options: see bench.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers="${XDG_CACHE_HOME:-$HOME/.cache}/regauge/analysis-peers"
if [ ! -x "$peers/bin/python" ]; then python3 -m venv "$peers"; fi
"$peers/bin/pip" install --quiet --disable-pip-version-check -r benches/analysis/requirements.txt
cargo build --release --workspace --locked --example bench-analysis --bin regauge
target="${CARGO_TARGET_DIR:-target}/release"
exec "$peers/bin/python" benches/analysis/bench.py \
  --ours "$target/examples/bench-analysis" --regauge "$target/regauge" --dir studies/bench/analysis "$@"
