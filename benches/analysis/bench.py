#!/usr/bin/env python3
"""The percentile table (five percentiles, 24 groups) of many raw samples: ours beside DuckDB and pandas.

Every engine reads the same Parquet files, in a process of its own, so that the kernel's figure of peak memory is that
engine's alone. The rounds are interleaved and begin with another engine each, so that a busy minute of the host hits
all of them. Seconds run from opening the files to the table, without starting the program; the files are in the page
cache (the first round, which is not counted, brings them there).

The tables are compared, too: `exact` must be the sample of the same rank as DuckDB's quantile_disc (a rank computed in
floating point may be its neighbour), `raw` and `histograms` must lie within 0.05 % of it. How far quantile_cont and
pandas lie from it is printed: they interpolate between samples, which in the tail of a small group is no error.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = ["raw", "exact"]
PEERS = ["duckdb-cont", "duckdb-disc", "pandas"]
# Half a bucket of a histogram with three digits, and one nanosecond of rounding.
HISTOGRAM_ERROR = 0.0005
# Where floating point computes a rank, it may be the neighbouring sample: at P99.99 of the smallest group these lie
# further apart than in the body.
BOUNDS = {"exact": 0, "raw": HISTOGRAM_ERROR, "histograms": HISTOGRAM_ERROR, "duckdb-disc": 0.01}


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--ours", required=True, help="the example bench-analysis")
    parser.add_argument("--regauge", required=True, help="the command")
    parser.add_argument("--dir", required=True, type=Path, help="where the data sets are kept")
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", default="", help="engines to leave out, separated by commas")
    parser.add_argument("--no-report", action="store_true", help="leave out the study and its report")
    return parser.parse_args()


def measured(command):
    """Output, seconds and peak resident memory (bytes) of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {' '.join(map(str, command))} failed with {process.returncode}")
    return output, time.perf_counter() - begin, usage.ru_maxrss * 1024


def engine_command(engine, ours, directory):
    if engine in PEERS:
        return [sys.executable, HERE / "peers.py", engine, directory]
    return [ours, engine, directory]


def differences(table, reference):
    """Largest relative difference from the reference, and how many cells are equal to it."""
    if table.keys() != reference.keys() or any(len(table[key]) != len(reference[key]) for key in table):
        sys.exit("bench: two engines do not have the same groups")
    pairs = [pair for key in table for pair in zip(table[key], reference[key])]
    largest = max(max(abs(a - b) - 1, 0) / b for a, b in pairs)
    return largest, sum(a == b for a, b in pairs), len(pairs)


def check(tables):
    exact = tables["exact"]
    for engine, table in tables.items():
        largest, equal, cells = differences(table, exact)
        print(f"{engine:12} {equal:3} of {cells} cells equal to exact, largest difference {100 * largest:.4f} %")
        if engine in BOUNDS and largest > BOUNDS[engine]:
            sys.exit(f"bench: {engine} differs from exact by more than {100 * BOUNDS[engine]} %")


def compare(args, data):
    engines = [engine for engine in OURS + PEERS if engine not in args.without.split(",")]
    if "exact" not in engines:
        sys.exit("bench: the others are checked against `exact`, so it cannot be left out")
    seconds, memory, tables = {e: [] for e in engines}, {e: 0 for e in engines}, {}
    for turn in range(args.rounds + 1):
        start = turn % len(engines)
        for engine in engines[start:] + engines[:start]:
            output, _, rss = measured(engine_command(engine, args.ours, data))
            result = json.loads(output)
            tables[engine] = result["table"]
            memory[engine] = max(memory[engine], rss)
            if turn > 0:
                seconds[engine].append(result["seconds"])
        print(f"round {turn} of {args.rounds}{' (not counted)' if turn == 0 else ''}", file=sys.stderr)
    print(f"\nfrom raw Parquet, {args.samples:,} samples, {len(tables['exact'])} groups, 5 percentiles; "
          f"{args.rounds} rounds, median (lowest to highest)\n")
    print("| engine | seconds | exact's seconds ÷ its | peak memory |\n|---|---|---|---|")
    for engine in engines:
        ratio = statistics.median(ours / its for ours, its in zip(seconds["exact"], seconds[engine]))
        span = f"{statistics.median(seconds[engine]):.2f} ({min(seconds[engine]):.2f} to {max(seconds[engine]):.2f})"
        print(f"| {engine} | {span} | {ratio:.2f} | {memory[engine] / 2**20:,.0f} MiB |")
    print()
    return tables


def from_histograms(args, data, tables):
    runs = [json.loads(measured([args.ours, "histograms", data])[0]) for _ in range(args.rounds)]
    tables["histograms"] = runs[0]["table"]
    check(tables)
    print(f"\nfrom histograms: {statistics.median(run['seconds'] for run in runs):.3f} s\n")


def report(args):
    study = args.dir / "study"
    if not (study / "study.json").exists():
        measured([args.ours, "study", study])
    runs = [measured([args.regauge, "report", study]) for _ in range(args.rounds)]
    size = (study / "report.html").stat().st_size
    print(f"report of 10 blocks × 6 arms × 40,000 requests: {statistics.median(run[1] for run in runs):.2f} s, "
          f"{size / 1e6:.2f} MB, peak memory {max(run[2] for run in runs) / 2**20:,.0f} MiB")


def main():
    args = options()
    data = args.dir / f"raw-{args.samples}"
    print(f"writing {args.samples:,} samples into {data}, unless they are there", file=sys.stderr)
    measured([args.ours, "generate", data, args.samples])
    from_histograms(args, data, compare(args, data))
    if not args.no_report:
        report(args)


if __name__ == "__main__":
    main()
