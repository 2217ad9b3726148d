#!/usr/bin/env python3
"""Our driver beside a public MQTT load tool: how exactly and how fast each sends.

Both send to the same sink (replayer/examples/driver_rate), which judges them from outside by one rule: on each
connection publish k should arrive k intervals after the first, counted in the sender's favour. The rounds alternate,
and the order within a round alternates too, so that a busy minute of the host hits both. What the driver says of
itself (sent - planned) stands below; the other tool does not report its send times.

The other tool is `mqttv5 bench` (crate mqttv5-cli): open loop, absolute deadlines, a rate per second, MQTT 5; of the
tools that install from a registry the only one with a pace at all. It is given the same CPU, the same connections and
payloads of the same size.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = "mqttv5-cli"
TOOL_VERSION = "0.29.10"
# PUBLISH: 2 or 3 bytes of fixed header, topic with its length, the property length of MQTT 5, and the payload.
HEAD_BYTES = 3 + 2 + 1
TOPIC = "bench"


def build():
    """The example, built if need be; its path comes from cargo, because target folders differ."""
    # The whole workspace's features, as every build here: another selection would compile RocksDB once more.
    command = ["cargo", "build", "--release", "--workspace", "--example", "driver_rate", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("bench: the example driver_rate does not build; see above")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "driver_rate":
            return message["executable"]
    sys.exit("bench: cargo did not say where the example is")


def find_tool(wanted):
    """Path of the other tool, or None with a reason on stderr."""
    path = wanted or shutil.which("mqttv5")
    if path is None:
        print(f"bench: mqttv5 is not installed, so our driver is measured alone; "
              f"get it with: cargo install {TOOL} --version {TOOL_VERSION}", file=sys.stderr)
    return path


def ours(example, options, rate):
    command = [example, "drive", "--rate", rate, "--seconds", options.seconds + options.skip, "--skip", options.skip,
               "--connections", options.connections, "--bytes", options.payload + HEAD_BYTES + len(TOPIC)]
    command += ["--cpu", options.cpu, "--sink-cpu", options.sink_cpu]
    command += ["--sleep"] if options.sleep else []
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def theirs(example, tool, options, rate):
    sink = [example, "sink", "--rate", rate, "--connections", options.connections, "--skip", options.skip,
            "--sink-cpu", options.sink_cpu]
    with subprocess.Popen([str(word) for word in sink], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sink:
        address = json.loads(sink.stdout.readline())["addr"]
        host, port = address.rsplit(":", 1)
        command = ["taskset", "-c", options.cpu, tool, "bench", "--mode", "throughput", "--host", host, "--port", port,
                   "--duration", int(options.seconds), "--warmup", max(1, int(options.skip)), "--qos", 0,
                   "--publishers", options.connections, "--subscribers", 0, "--topics", options.connections,
                   "--inflight", 1, "--rate", int(rate), "--payload-size", options.payload, "--topic", TOPIC]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        sink.stdin.close()
        found = sink.stdout.readline()
        sink.wait()
    if done.returncode or not found:
        sys.exit(f"bench: {' '.join(map(str, command))} failed: {done.stderr.strip()}")
    return json.loads(found)


def median(rounds, *path):
    values = []
    for found in rounds:
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            values.append(found)
    return statistics.median(values) if values else None


def row(name, unit, our, their, scale=1.0):
    def show(value):
        return "-" if value is None else f"{value / scale:,.1f}"
    ratio = f"{their / our:.2f}" if our and their else "-"
    print(f"{name:<34}{unit:>6}{show(our):>16}{show(their):>16}{ratio:>12}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured, per run")
    parser.add_argument("--skip", type=float, default=1.0, help="seconds at the start of a run that do not count")
    parser.add_argument("--rate", type=float, default=20000.0, help="publishes per second of the paced runs")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--payload", type=int, default=200, help="bytes")
    parser.add_argument("--cpu", type=int, default=0, help="CPU of the sender")
    parser.add_argument("--sink-cpu", type=int, default=1, help="CPU of the sink")
    parser.add_argument("--sleep", action="store_true", help="our driver sleeps until deadlines instead of spinning")
    parser.add_argument("--tool", help="path of mqttv5, if it is not on the PATH")
    parser.add_argument("--json", action="store_true", help="print every round as JSON instead of the table")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("bench: sender and sink need a CPU each, and this host has one")

    example = build()
    tool = find_tool(options.tool)
    found = {(who, mode): [] for who in ("ours", "theirs") for mode in ("paced", "max")}
    for round_number in range(options.rounds):
        for mode, rate in (("paced", options.rate), ("max", 0)):
            runs = [("ours", lambda: ours(example, options, rate))]
            if tool:
                runs.append(("theirs", lambda: theirs(example, tool, options, rate)))
            for who, run in (runs if round_number % 2 == 0 else reversed(runs)):
                found[who, mode].append(run())
        print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)

    if options.json:
        print(json.dumps({f"{who}_{mode}": rounds for (who, mode), rounds in found.items()}))
        return
    paced, other = found["ours", "paced"], found["theirs", "paced"]
    print(f"QoS 0, {options.payload} B payload, {options.connections} connections, sender on CPU {options.cpu}, "
          f"sink on CPU {options.sink_cpu}; medians of {options.rounds} rounds")
    print(f"{'':<34}{'':>6}{'regauge':>16}{'mqttv5 bench':>16}{'theirs/ours':>12}")
    row("fastest, arrived", "1/s", median(found["ours", "max"], "arrived_per_s"),
        median(found["theirs", "max"], "arrived_per_s"))
    row(f"at {options.rate:,.0f}/s: arrived", "1/s", median(paced, "arrived_per_s"), median(other, "arrived_per_s"))
    for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9"), ("max", "max")):
        row(f"  late on arrival, {name}", "µs", median(paced, "late_ns", key), median(other, "late_ns", key), 1000)
    for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9"), ("max", "max")):
        row(f"  sent - planned, {name}", "µs", median(paced, "driver", "send_lag_ns", key), None, 1000)


if __name__ == "__main__":
    main()
