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
# # 3. How the tail scales
#
# From the median to the last percentile that enough independent episodes stand behind, and from a quarter of the load
# to nearly all of it.

# %% tags=["parameters"]
STUDY = None

# %%
import sys

sys.path[:0] = ["lib", "."]
import math

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from regauge_study import (LABELS, MARKS, PPM, Study, curve, human, jackknife, legend_above, nines_on, pooled, quantile,
                           times_on)

study = Study(STUDY)
print(study.manifest["trace_source"])
print(f"{study.manifest['requests']:,} requests a run, {len(study.names)} arms, {len(study.complete)} complete blocks; base: {study.base}")

latencies = {arm: blocks for arm, blocks in study.latencies(complete=False).items() if blocks}
print(f"primary: {study.primary_name()}")

# %% [markdown]
# ## Percentile curves
#
# All valid blocks of an arm pooled; thin lines are single blocks. Grey: percentiles that the library refuses for at
# least one arm, because fewer than 20 independent episodes lie beyond them. One stall that delays a hundred requests is
# one episode.

# %%
refused = []
for arm in study.analysis["arms"]:
    tails = arm["steps"].get(study.step, {}).get("latency") or {}
    refused += [1 - PPM[key] / 1e6 for key in tails.get("refused", {})]
fig, ax = plt.subplots()
for arm, blocks in latencies.items():
    style = study.style(arm)
    for values in blocks.values():
        ax.plot(*curve(values, 60), lw=0.6, alpha=0.3, color=style["color"])
    ax.plot(*curve(pooled(blocks)), lw=2.2, label=arm, **style)
times_on(ax.yaxis)
last = ax.get_xlim()[1]
if refused:
    ax.axvspan(-math.log10(max(refused)), last, color="#8c959f", alpha=0.2, lw=0)
    ax.text(last, ax.get_ylim()[0], "refused ", ha="right", va="bottom", color="#57606a")
ax.set_xlim(0, last)
nines_on(ax, last)
ax.set_ylabel("latency from the planned time")
legend_above(ax, ncols=3)
plt.show()

# %% [markdown]
# ## The ratio function
#
# Each arm's percentile over the base's, with the jackknife that leaves out one block at a time: one number per
# percentile, instead of one number. Green: the region of equivalence; dashed: the bar. The curve ends where either arm is
# refused.

# %%
question = study.question


def ratio_curve(arm, until, points=28):
    blocks = sorted(set(latencies[arm]) & set(latencies[study.base]))
    sides = [[pooled({b: side[b] for b in blocks}, without) for without in (None, *blocks)]
             for side in (latencies[arm], latencies[study.base])]
    for x in np.linspace(0.1, until, points):
        ppm = round((1 - 10**-x) * 1e6)
        thetas = [math.log(quantile(a, ppm)) - math.log(quantile(b, ppm)) for a, b in zip(*sides)]
        yield x, *jackknife(thetas[0], thetas[1:])


def supported(arm):
    """Nines of the last percentile that is not refused, for the arm and the base."""
    keys = set(PPM)
    for name in (arm, study.base):
        summary = next(a for a in study.analysis["arms"] if a["name"] == name)["steps"].get(study.step, {}).get("latency")
        keys &= {key for key, value in (summary or {}).get("percentiles_ns", {}).items() if value is not None}
    return max((-math.log10(1 - PPM[key] / 1e6) for key in keys), default=0)


others = [arm for arm in latencies if arm != study.base and supported(arm) > 0 and study.base in latencies]
if not others:
    print("No arm shares a valid block with the base, or every percentile is refused: no ratio.")
else:
    columns = 2
    fig, axes = plt.subplots(math.ceil(len(others) / columns), columns, figsize=(10, 2.9 * math.ceil(len(others) / columns)),
                             squeeze=False, sharex=True, sharey=True)
    for ax, arm in zip(axes.flat, others):
        points = list(ratio_curve(arm, supported(arm)))
        x, value, low, high = zip(*points)
        style = study.style(arm)
        ax.axhspan(question["equivalent_low"], question["equivalent_high"], color="#007a58", alpha=0.15, lw=0)
        ax.axhline(1, color="#24292f", lw=1)
        ax.axhline(question["worth_ratio"], color="#24292f", lw=1, ls="--")
        if low[0] is not None:
            ax.fill_between(x, low, high, color=style["color"], alpha=0.2, lw=0)
        ax.plot(x, value, lw=2, **style)
        ax.set_title(arm, loc="left", fontsize=11)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
        ax.yaxis.set_minor_formatter(lambda v, _: "")
        ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5])
        nines_on(ax, max(x))
        ax.set_xlabel("")
    values = [v for arm in others for point in ratio_curve(arm, supported(arm), 6) for v in point[1:] if v]
    axes[0][0].set_ylim(max(0.05, min(values) / 1.2, ), min(20, max(values) * 1.2))
    for ax in axes.flat[len(others):]:
        ax.set_visible(False)
    fig.tight_layout()
    plt.show()

# %% [markdown]
# ## Episodes: how much stands behind a percentile
#
# Exceedances come in clusters. The extremal index (Ferro and Segers) is the share of them that begin a cluster; times the
# exceedances it is the number of independent episodes. Below 20 a percentile is refused, below 50 it is of low
# confidence, and a verdict needs 50.

# %%
rows = []
for arm in study.analysis["arms"]:
    tails = arm["steps"].get(study.step, {}).get("latency")
    for key, support in (tails or {}).get("support", {}).items():
        refusal = tails["refused"].get(key)
        rows.append({"arm": arm["name"], "percentile": LABELS[key], "exceedances": support["exceedances"],
                     "episodes": round(support["episodes"], 1),
                     "shown": "refused" if refusal else human(tails["percentiles_ns"][key]),
                     "needs": "" if not refusal else "a driver that is on time" if refusal["driver_owned"]
                     else f"{refusal['needed']:,} samples"})
episodes = pl.DataFrame(rows)
if episodes.is_empty():
    print("No arm has a latency of this step.")
else:
    fig, ax = plt.subplots(figsize=(9, 3.6))
    order = [label for label in LABELS.values() if label in episodes["percentile"].to_list()]
    for arm in study.names:
        part = {row["percentile"]: row["episodes"] for row in rows if row["arm"] == arm}
        ax.plot([p for p in order if p in part], [max(0.5, part[p]) for p in order if p in part],
                marker=MARKS[study.series(arm) % 4], lw=1.6, label=arm, **study.style(arm))
    for limit, word in ((20, "refused below"), (50, "low confidence below")):
        ax.axhline(limit, color="#a8320a", lw=1, ls=":")
        ax.text(0, limit, f"{word} {limit}", fontsize=9, color="#a8320a", va="bottom")
    ax.set(yscale="log", ylabel="independent episodes")
    legend_above(ax, ncols=3)
    plt.show()
    display(episodes.filter(pl.col("shown") == "refused"))

# %% [markdown]
# ## Over the run
#
# P99 in windows of planned time, and which of them are warm-up. Drift here means that the cut is too early or the run
# too short; the library tests both.

# %%
width_ns = max(1, min(1_000_000_000, study.manifest["duration_ns"] // 16))
windows = study.requests().filter(pl.col("latency_ns").is_not_null()).with_columns(
    window=pl.col("planned_ns") // width_ns).group_by("arm", "window").agg(
    p50=pl.col("latency_ns").quantile(0.5, "higher"), p99=pl.col("latency_ns").quantile(0.99, "higher"), n=pl.len()
).filter(pl.col("n") >= 100).with_columns(s=(pl.col("window") + 0.5) * width_ns / 1e9).sort("arm", "window").collect()
fig, ax = plt.subplots()
for arm in study.names:
    line = windows.filter(pl.col("arm") == arm)
    ax.plot(line["s"], line["p99"], lw=1.8, label=arm, **study.style(arm))
ax.axvspan(0, study.cut_ns / 1e9, color="#bf8700", alpha=0.15, lw=0)
times_on(ax.yaxis)
ax.set(xlabel="planned time since the run's start, s", ylabel="P99 per window", xlim=(0, study.manifest["duration_ns"] / 1e9))
legend_above(ax, ncols=3)
plt.show()
steady = study.decision["steady"]
print(f"cut: {human(steady['cut_ns'])} (planned {human(steady['planned_ns'])}, MSER {human(steady['mser_ns'])})")
for run in steady["not_reached"]:
    print("never settled:", run)
for step in steady["moved"]:
    print(f"moved: block {step['block']} {step['arm']} at {human(step['at_ns'])}, {100 * step['change']:+.0f} %, p = {step['p']}")
if steady["untested"]:
    print(steady["untested"])

# %% [markdown]
# ## Against load
#
# The primary percentile's ratio at several shares of the base's knee, the rate up to which it keeps up. A ratio at one
# load says nothing about another: thread-per-core and work stealing can change places.

# %%
loads = study.decision["loads"]
if not loads or len(loads["loads"]) < 2:
    print("This study ran at one load; `regauge study --load 0.25,0.5,0.75,0.9` measures several.")
else:
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for arm in study.names:
        cells = [(row["share"], next((c for c in row["cells"] if c["arm"] == arm), None)) for row in loads["loads"]]
        at = [(share, cell["percentile_ns"]) for share, cell in cells if cell and cell["percentile_ns"]]
        left.plot([100 * s for s, _ in at], [ns for _, ns in at], marker=MARKS[study.series(arm) % 4], label=arm,
                  **study.style(arm))
        with_ratio = [(share, cell["ratio"]) for share, cell in cells if cell and cell["ratio"]]
        if arm == study.base or not with_ratio:
            continue
        x = [100 * share + study.series(arm) - 2 for share, _ in with_ratio]
        y = [r["value"] for _, r in with_ratio]
        ends = [[v - (r["low"] or v) for v, (_, r) in zip(y, with_ratio)], [(r["high"] or v) - v for v, (_, r) in zip(y, with_ratio)]]
        right.errorbar(x, y, yerr=ends, marker=MARKS[study.series(arm) % 4], capsize=3, lw=1.4, **study.style(arm))
    times_on(left.yaxis)
    left.set(xlabel="load, % of the base's knee", ylabel=study.primary_name())
    right.axhspan(question["equivalent_low"], question["equivalent_high"], color="#007a58", alpha=0.15, lw=0)
    right.axhline(question["worth_ratio"], color="#24292f", lw=1, ls="--")
    right.set(yscale="log", xlabel="load, % of the base's knee", ylabel="ratio to the base")
    right.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
    right.yaxis.set_minor_formatter(lambda v, _: f"{v:g}×" if round(v, 1) in (0.2, 0.5, 0.7, 2, 3) else "")
    fig.legend(*left.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.05, 1.0), ncols=4)
    fig.tight_layout()
    plt.show()
    for arm, kept, missed, limited in loads["knees"]:
        print(f"knee of {arm}: keeps up at {kept or 0:,.0f}/s" + (f", not at {missed:,.0f}/s" if missed else "") + f" (limited by {limited})")
    for flip in loads["flips"]:
        print("-", flip)
