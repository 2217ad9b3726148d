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
# # 2. Where the time goes
#
# A latency, from the planned time to the reply, is split into lanes that add up to it: driver lag, network, queued in
# the broker, woken but not polled (the runtime's queue), ready but without a CPU, on the CPU, blocked in storage, and
# what nothing explains. A migration to another runtime can only take away what lies in the runtime's lane.

# %% tags=["parameters"]
STUDY = None

# %%
import sys

sys.path[:0] = ["lib", "."]
import matplotlib.pyplot as plt
import polars as pl
from regauge_study import LANES, STORAGE, Study, human

study = Study(STUDY)
print(study.manifest["trace_source"])
print(f"{study.manifest['requests']:,} requests a run, {len(study.names)} arms, {len(study.complete)} complete blocks; base: {study.base}")

lanes = study.analysis["lanes"]
if not lanes:
    print("No run of this study has stamps, so nothing says where the time went: every cell below will be empty.")
for why in study.analysis["lanes_missing"]:
    print(why)

# %% [markdown]
# ## Around the median and in the tail
#
# Requests are chosen by their whole latency first (P45–P55, and P99 and above), then their lanes are averaged: means of
# lanes add up, percentiles of lanes do not. The number at the end of a bar is the mean latency of the group.


# %%
def parts(shares):
    """Shares by lane, storage in one."""
    merged = {lane: shares.get(lane, 0.0) for lane in LANES}
    merged["storage"] = sum(shares.get(lane, 0.0) for lane in STORAGE)
    return merged


def bars(step):
    groups = [(arm["arm"], group) for arm in lanes for group in arm["groups"] if group["step"] == step and group["shares"]]
    if not groups:
        print(f"{step}: too few requests with stamps for a mean.")
        return
    fig, ax = plt.subplots(figsize=(9, 0.42 * len(groups) + 1.3))
    for y, (arm, group) in enumerate(reversed(groups)):
        left = 0.0
        for lane, share in parts(group["shares"]).items():
            label, colour = LANES[lane]
            edge = {"edgecolor": "#57606a", "hatch": "///"} if lane == "unattributed" else {"edgecolor": "white"}
            ax.barh(y, share, left=left, color=colour, height=0.72, label=label if y == 0 else None, **edge)
            if share > 0.06:
                dark = lane in ("storage", "woken_polled", "on_cpu")
                ax.text(left + share / 2, y, f"{100 * share:.0f} %", ha="center", va="center", fontsize=9,
                        color="white" if dark else "black")
            left += share
        ax.text(1.01, y, human(group["latency_ns"]), va="center", fontsize=10)
    at = {"median": "~P50", "tail": "≥P99"}
    ax.set_yticks(range(len(groups)), [f"{arm}  {at[group['at']]}" for arm, group in reversed(groups)])
    ax.set(xlim=(0, 1), xticks=[], title=None)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="upper left", ncols=4, fontsize=10, title=step, alignment="left",
               bbox_to_anchor=(0.02, 1.0 + 0.55 / fig.get_figheight()))
    fig.tight_layout()
    plt.show()


for step in sorted({group["step"] for arm in lanes for group in arm["groups"]}):
    bars(step)

# %% [markdown]
# ## Where the gap between two tails lies
#
# Per lane, the mean time in the arm's tail minus that in the base's (below zero: the arm is shorter there). What the runtime can be blamed for is
# `woken→polled`: under a fifth of the gap, the runtime is not the cause.

# %%
attribution = study.decision["attribution"]
if not attribution:
    print("Nothing to attribute: that takes stamps of valid runs of the base and of another arm.")
for of in attribution:
    if of["against"] != study.base:
        continue
    print(of["finding"])
    for lane, ns in sorted(of["lanes_ns"], key=lambda part: -abs(part[1]))[:3]:
        print(f"    {lane.replace('_', ' '):<14} {human(-ns):>9}")

# %% [markdown]
# ### The same by hand
#
# The lanes of every request are in `tables/lanes/`. The means of the slowest one percent, computed again from them.

# %%
rows = study.lane_rows()
if rows is None:
    print("No tables/lanes: run `regauge analyze` on a study with stamps.")
else:
    columns = [name for name in rows.columns if name in LANES or name in STORAGE or name.removesuffix("_ns") in (*LANES, *STORAGE)]
    kept = rows.filter(~pl.col("is_warmup")) if "is_warmup" in rows.columns else rows
    step = max(kept.group_by("step").len().iter_rows(), key=lambda row: row[1])[0]
    of_step = kept.filter(pl.col("step") == step)
    tail = of_step.with_columns(
        r=pl.col("latency_ns").rank("ordinal").over("arm"), n=pl.len().over("arm")
    ).filter(pl.col("r") >= (pl.col("n") * 99 + 99) // 100)
    means = tail.group_by("arm").agg(pl.len().alias("requests"), pl.col("latency_ns").mean(), *[pl.col(c).mean() for c in columns])
    order = pl.DataFrame({"arm": study.names})
    there = [c for c in columns if means[c].sum()]
    display(order.join(means, on="arm").select("arm", "requests", *[
        pl.col(c).map_elements(human, return_dtype=pl.String).alias(c.removesuffix("_ns")) for c in ("latency_ns", *there)]))
    gaps = (means.select(pl.sum_horizontal(columns) - pl.col("latency_ns"))).to_series()
    print(f"{step}: lanes and latency differ by {human(float(gaps.abs().max()))} at most.")

# %% [markdown]
# ## One picture of the tail: lanes along the percentiles
#
# For the base arm, requests ordered by latency and averaged in bins: the body on the left, the tail on the right. A lane
# that grows to the right makes the tail; one that is as wide everywhere does not.

# %%
if rows is None:
    print("No tables/lanes, no picture.")
else:
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    others = study.others() or [name for name in study.names if name != study.base]
    best = study.decision.get("best_of_today")
    second = best if best and best != study.base else (others[0] if others else study.base)
    edges = [0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0]
    names = ["P0–50", "–P75", "–P90", "–P95", "–P98", "–P99", "–P99.5", "rest"]
    for ax, arm in zip(axes, (study.base, second)):
        part = of_step.filter(pl.col("arm") == arm).sort("latency_ns")
        if part.is_empty():
            ax.set_title(f"{arm}: no stamps")
            continue
        bottoms = [0.0] * len(names)
        means = [part.slice(int(a * len(part)), max(1, int(b * len(part)) - int(a * len(part)))).select(
            [pl.col(c).mean() for c in columns]).row(0, named=True) for a, b in zip(edges, edges[1:])]
        strip = lambda mean: {name.removesuffix("_ns"): value for name, value in mean.items()}
        for lane, (label, colour) in LANES.items():
            heights = [parts(strip(mean))[lane] / 1e6 for mean in means]
            edge = {"edgecolor": "#57606a", "hatch": "///"} if lane == "unattributed" else {}
            ax.bar(names, heights, bottom=bottoms, color=colour, label=label, width=0.85, **edge)
            bottoms = [a + b for a, b in zip(bottoms, heights)]
        ax.set_title(arm, fontsize=11, loc="left")
        ax.tick_params(axis="x", rotation=35)
    axes[0].set_ylabel("mean latency, ms")
    for ax in axes:
        if ax.containers:
            ax.legend(loc="upper left", fontsize=9)
            break
    fig.tight_layout()
    plt.show()

# %% [markdown]
# ## `set_last_applied`, the interval that RobustMQ's engineers timed
#
# From asking for the write to going on after it. Their reading was that its slow cases wait for a worker thread of tokio.

# %%
found = False
for arm in lanes:
    for group in arm["groups"]:
        if group["step"] == "set_last_applied" and group["at"] == "tail" and group["shares"]:
            found = True
            shares = parts(group["shares"])
            largest = sorted(shares.items(), key=lambda part: -part[1])[:3]
            words = ", ".join(f"{LANES[lane][0]} {100 * share:.0f} %" for lane, share in largest)
            print(f"{arm['arm']}: the slowest 1 % take {human(group['latency_ns'])} in the mean: {words}")
if not found:
    print("No run of this study stamped set_last_applied often enough.")
