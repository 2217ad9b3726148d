# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Does the replay match?
#
# Before any runtime is compared: was the recorded workload really sent, and was it sent on time? If not, a difference
# between arms is a difference between workloads or drivers, and the other notebooks mean nothing.
#
# The study is named by the environment variable `REGAUGE_STUDY`, or it is the directory above this one.

# %% tags=["parameters"]
STUDY = None

# %%
import sys

sys.path[:0] = ["lib", "."]
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from regauge_study import COLOURS, Study, human, legend_above, times_on

study = Study(STUDY)
print(study.manifest["trace_source"])
print(f"{study.manifest['requests']:,} requests a run, {len(study.names)} arms, {len(study.complete)} complete blocks; base: {study.base}")

# %% [markdown]
# ## Is what was sent what was recorded?
#
# The trace holds *roots*, requests that came from outside, and *steps*, what the broker did because of them. Only roots
# are replayed. The plan is the same in every run (one hash names it), so one run stands for all. `close` is the end of a
# connection, with no packet of its own; raft and segment spans with a parent are steps.

# %%
WIRE = ["connect", "publish", "subscribe", "unsubscribe", "ping", "disconnect"]
requests = study.requests()
if requests is None:
    raise ValueError("No run of this study is valid, so there is nothing to compare: its gates say why.")
first = study.records[0]
one = requests.filter((pl.col("block") == first["block"]) & (pl.col("arm") == first["arm"])).collect()
if one.is_empty():
    valid = next(record for record in study.records if record["valid"])
    one = requests.filter((pl.col("block") == valid["block"]) & (pl.col("arm") == valid["arm"])).collect()
trace_path = study.dir / "trace.parquet"
trace = pl.read_parquet(trace_path) if trace_path.is_file() else None
if trace is None:
    print("The study has no trace.parquet: whether the plan is the recording cannot be checked here.")
else:
    roots = trace.filter(pl.col("parent").is_null() & pl.col("kind").is_in([*WIRE, "close", "raft_proposal", "segment_append"]))
    on_wire = roots.filter(pl.col("kind").is_in(WIRE))
    kinds = roots.group_by("kind").len("in the trace").join(
        one.group_by(kind="step").len("in the replay"), on="kind", how="full", coalesce=True
    ).fill_null(0).sort("kind")
    display(kinds)
    counted = dict(kinds.select("kind", pl.col("in the replay") - pl.col("in the trace")).iter_rows())
    differ = {kind: n for kind, n in counted.items() if n and kind in WIRE}
    print("Every request of the trace is in the replay, and no other." if not differ else
          "In the replay there are, more or fewer than in the trace: "
          + ", ".join(f"{kind} {n:+}" for kind, n in differ.items()) + ".")

# %% [markdown]
# ## Do they arrive when they arrived?
#
# The gaps between requests make the tail: a replay that smooths bursts has no queues. Left, arrivals per bin; right, the
# distribution of gaps between successive requests. The lines should lie on each other, but for the replay's speed.

# %%
if trace is None:
    print("No trace, no comparison.")
else:
    recorded = on_wire["start_ns"].sort().to_numpy().astype(float)
    planned = one.filter(pl.col("step").is_in(WIRE))["planned_ns"].sort().to_numpy().astype(float)
    recorded = recorded - recorded[0]
    planned = planned - planned[0]
    speed = recorded[-1] / planned[-1] if planned[-1] > 0 else 1.0
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    bins = np.linspace(0, planned[-1] / 1e9, 60)
    left.hist(recorded / speed / 1e9, bins, histtype="step", lw=2, color=COLOURS[0], label="trace")
    left.hist(planned / 1e9, bins, histtype="step", lw=1.4, ls="--", color=COLOURS[2], label="replay")
    left.set(xlabel="time since the first request, s", ylabel="requests per bin")
    left.legend(loc="lower right")
    for times, colour, dash, name in ((recorded / speed, COLOURS[0], "-", "trace"), (planned, COLOURS[2], "--", "replay")):
        gaps = np.sort(np.diff(times))
        gaps = gaps[gaps > 0]
        right.plot(gaps, np.linspace(0, 1, len(gaps)), color=colour, ls=dash, lw=2, label=name)
    times_on(right.xaxis)
    right.set(xlabel="gap between requests", ylabel="share of gaps that are shorter")
    fig.tight_layout()
    plt.show()
    print(f"speed of the replay: {speed:.3g} ×")
    if len(recorded) == len(planned):
        off = np.abs(recorded / speed - planned)
        print(f"largest difference between a planned and a recorded arrival: {human(float(off.max()))}")
    else:
        print(f"{len(recorded):,} arrivals on the wire in the trace, {len(planned):,} in the replay: not compared one by one")

# %% [markdown]
# ## Are they as long as they were?
#
# Contents are filler, lengths are not. The driver keeps how many bytes it had sent on a connection after each packet, so
# differences along a connection are the packets' lengths. What it sends besides, acknowledgements of deliveries, counts
# into the next packet: look at the medians.

# %%
if trace is None or "sent_offset" not in one.columns:
    print("No trace, or a study of before byte offsets were kept: lengths cannot be compared.")
else:
    sent = one.filter(pl.col("sent_offset").is_not_null() & pl.col("step").is_in(WIRE)).sort("connection", "sent_offset")
    sent = sent.with_columns(bytes=pl.col("sent_offset") - pl.col("sent_offset").shift(1, fill_value=0).over("connection"))

    def lengths(rows, kind, name):
        return rows.group_by(kind=kind).agg(
            pl.col("bytes").quantile(0.1, "higher").alias(f"{name} P10"), pl.col("bytes").quantile(0.5, "higher").alias(f"{name} P50"),
            pl.col("bytes").quantile(0.9, "higher").alias(f"{name} P90"))

    display(lengths(on_wire, "kind", "recorded").join(lengths(sent, "step", "replayed"), on="kind", how="left").sort("kind"))
    total = sent["bytes"].sum() / max(1, on_wire["bytes"].sum()) - 1
    print(f"All together: {100 * total:+.2f} % in bytes, acknowledgements of deliveries included.")

# %% [markdown]
# ## Is the driver on time?
#
# Latency counts from the planned time, so a late driver would look like a slow server. `driver_lag_ns` is the driver's
# own lateness in sending, without what server or protocol held back; `read_lag_ns` bounds its lateness in reading. Gates
# throw out runs beyond the dashed bounds; here is what the valid runs had.

# %%
late = [name for name in ("driver_lag_ns", "read_lag_ns") if name in requests.collect_schema().names()]
if not late:
    print("The runs do not record the driver's own lateness (a study of layout 1, or a synthetic one);")
    print("what they have is sent − planned, which also holds what the server held back.")
    requests = requests.with_columns(sent_late_ns=pl.col("sent_ns").cast(pl.Int64) - pl.col("planned_ns").cast(pl.Int64))
    late = ["sent_late_ns"]
fig, axes = plt.subplots(1, len(late), figsize=(5.5 * len(late), 3.8), squeeze=False)
rows = []
for ax, column in zip(axes[0], late):
    for name in study.names:
        values = requests.filter((pl.col("arm") == name) & pl.col(column).is_not_null()).select(
            pl.col(column).cast(pl.Int64).clip(1).sort()).collect()[column].to_numpy()
        if len(values) == 0:
            continue
        style = study.style(name)
        ax.plot(values, 1 - np.arange(len(values)) / len(values), lw=1.8, label=name, **style)
        rows.append({"what": column.removesuffix("_ns"), "arm": name, "P50": human(np.quantile(values, 0.5)),
                     "P99": human(np.quantile(values, 0.99)), "P99.9": human(np.quantile(values, 0.999)),
                     "largest": human(values[-1])})
    for bound, gate in (("driver_lag_p99_ns", 0.01), ("driver_lag_p99_9_ns", 0.001)):
        at = study.manifest["gates"].get(bound)
        if at and column != "sent_late_ns":
            ax.plot([at], [gate], marker="x", ms=10, mew=2.5, color="#a8320a", ls="none")
    ax.set(yscale="log", xlabel=column.removesuffix("_ns").replace("_", " "), ylabel="share of requests later than this")
    times_on(ax.xaxis)
legend_above(axes[0][0], ncols=3)
fig.tight_layout()
plt.show()
pl.DataFrame(rows)

# %% [markdown]
# ## What the gates said
#
# Gates are blind to the arm and to the tail. Each row is a gate; runs that failed one enter no figure.

# %%
gates = pl.DataFrame([
    {"gate": gate["name"], "arm": record["arm"], "failed": not gate["passed"], "measured": gate["measured"]}
    for record in study.records for gate in record["gates"]
])
failed = gates.group_by("gate", maintain_order=True).agg(
    runs=pl.len(), failed=pl.col("failed").sum(),
    example=pl.col("measured").filter(pl.col("failed")).first().fill_null(""))
display(failed)
valid = sum(record["valid"] for record in study.records)
print(f"{valid} of {len(study.records)} runs are valid; {len(study.complete)} blocks are complete.")

# %% [markdown]
# ## So
#
# Read on when the kinds agree, the lines of arrivals lie on each other, and the driver's lateness is far below the
# latencies that are compared: the next cell sets the two side by side.

# %%
column = late[0]
summary = requests.filter(pl.col(column).is_not_null() & pl.col("latency_ns").is_not_null()).group_by("arm").agg(
    lateness=pl.col(column).cast(pl.Float64).quantile(0.99, "higher"),
    latency=pl.col("latency_ns").cast(pl.Float64).quantile(0.99, "higher")).sort("arm").collect()
for arm, lateness, latency in summary.iter_rows():
    print(f"{arm}: P99 of the driver's lateness {human(lateness)}, P99 of the latency {human(latency)}"
          f" ({100 * lateness / latency:.1f} %)")
