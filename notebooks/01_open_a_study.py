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
# # Open a study
#
# What is in a study's directory, and do its raw samples say what the report says?
#
# This notebook reads the raw samples with polars, shows the arms and their pooled percentiles, draws latency by
# percentile and over time, and checks its own percentiles against `analysis.json`. The rules of the trade (refusal,
# intervals, verdict) live in the library; nothing is decided here.
#
# The study's path comes from the environment variable `REGAUGE_STUDY`, or from papermill (`-p STUDY path`).

# %% tags=["parameters"]
STUDY = None

# %%
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

study = Path(STUDY or os.environ.get("REGAUGE_STUDY", "sample-study"))
assert (study / "study.json").is_file(), f"{study} is not a study: it holds no study.json"
assert (study / "analysis.json").is_file(), f"{study} has no analysis.json: run `regauge analyze {study}` first"
manifest = json.loads((study / "study.json").read_text())
analysis = json.loads((study / "analysis.json").read_text())
print(manifest["trace_source"])
print(f"{manifest['blocks']} blocks, {manifest['requests']:,} requests per run, seed {manifest['seed']}")

# %% [markdown]
# ## The arms
#
# What differs between them is what a comparison can be about.

# %%
pl.Config.set_tbl_hide_dataframe_shape(True)
pl.Config.set_tbl_hide_column_data_types(True)
pl.Config.set_fmt_str_lengths(60)
pl.Config.set_tbl_rows(40)


def flat(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value)


settings = pl.DataFrame(
    [{"setting": key, "arm": arm["name"], "value": value}
     for arm in manifest["arms"]
     for key, value in flat({"stack": arm["stack"], **arm["settings"]})]
).pivot(on="arm", index="setting", values="value")
settings.with_columns(
    differs=pl.concat_list(pl.exclude("setting").fill_null("–")).list.n_unique() > 1
).sort("differs", descending=True, maintain_order=True)

# %% [markdown]
# ## The samples
#
# `runs/` is Hive-partitioned: block and arm are columns. Runs that failed a gate enter nothing; neither do requests of
# the warm-up (flag 1), nor requests without a right reply, which have no latency: an error is never a latency.

# %%
WARMUP = 1
runs = pl.DataFrame([json.loads(path.read_text()) for path in sorted(study.glob("runs/block=*/arm=*/run.json"))],
                    infer_schema_length=None)
valid = runs.filter("valid").select(pl.col("block").cast(pl.Int64), "arm")
samples = pl.scan_parquet(
    study / "runs/**/requests.parquet",
    hive_partitioning=True,
    hive_schema={"block": pl.Int64, "arm": pl.String},
).join(valid.lazy(), on=["block", "arm"])
measured = samples.filter((pl.col("flags") & WARMUP == 0) & pl.col("latency_ns").is_not_null())
samples.group_by("arm").agg(
    blocks=pl.col("block").n_unique(),
    requests=(pl.col("flags") & WARMUP == 0).sum(),
    replies=((pl.col("flags") & WARMUP == 0) & pl.col("latency_ns").is_not_null()).sum(),
).sort("arm").collect()

# %% [markdown]
# ## Pooled percentiles
#
# All valid blocks of an arm pooled; a percentile is the sample of rank ⌈N·p⌉, never a mean of percentiles. The report's
# come from merged histograms and may differ by their resolution (0.1 %). Some of them are refused there, because
# too few independent episodes lie beyond them: here they are computed for the check, not for quoting.

# %%
PPM = {"p50": 500_000, "p90": 900_000, "p99": 990_000, "p99_9": 999_000, "p99_99": 999_900}
names = [arm["name"] for arm in analysis["arms"] if arm["valid"]]
pooled = {
    name: measured.filter(pl.col("arm") == name).select(pl.col("latency_ns").sort()).collect()["latency_ns"]
    for name in names
}


def quantile(values, ppm):
    return values[max(1, -(-len(values) * ppm // 1_000_000)) - 1]


def human(ns, _=None):
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= 0.9995 * scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


pl.DataFrame(
    [{"arm": name, "replies": len(values)}
     | {key: human(quantile(values, ppm)) for key, ppm in PPM.items()} for name, values in pooled.items()]
)

# %% [markdown]
# ### Do they agree with `analysis.json`?

# %%
checked = 0
for arm in analysis["arms"]:
    for key, ppm in PPM.items():
        reported = arm["percentiles_ns"][key]
        if reported is None:
            continue
        own = quantile(pooled[arm["name"]], ppm)
        assert abs(own / reported - 1) < 0.01, f"{arm['name']} {key}: {own} here, {reported} in analysis.json"
        checked += 1
assert checked > 0, "analysis.json shows no percentile at all"
print(f"{checked} percentiles agree with analysis.json within 1 %")
refused = [f"{key} of {arm['name']}" for arm in analysis["arms"] for key in arm["refused"]]
print("refused there:", ", ".join(refused) or "none")

# %% [markdown]
# ## By percentile
#
# One step to the right is one nine more. Thin lines are single blocks: their spread is what another run could have shown.

# %%
COLOURS = ["#24292f", "#0062a8", "#c24e00", "#007a58", "#a83d83", "#7a6200", "#2a7f9e", "#8a4b2a"]
DASHES = ["-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)), (0, (10, 3)), (0, (4, 1, 1, 1)), (0, (1, 3)), (0, (9, 2, 3, 2))]
plt.rcParams.update({"figure.figsize": (9, 4.8), "axes.grid": True, "grid.alpha": 0.3, "font.size": 11})


def curve(values, points=200):
    last = len(values).bit_length() * 0.30103
    # From P10 on: the fastest few would stretch the axis and say nothing.
    nines = [0.0458 + last * i / points for i in range(points + 1)]
    nines = [x for x in nines if 10**-x * len(values) >= 1]
    return nines, [quantile(values, round((1 - 10**-x) * 1e6)) for x in nines]


def times_on(ax):
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(human))
    ax.yaxis.set_minor_formatter(NullFormatter())


fig, ax = plt.subplots()
for i, name in enumerate(names):
    style = {"color": COLOURS[i % 8]}
    blocks = measured.filter(pl.col("arm") == name).select("block", "latency_ns").collect()
    for _, block in blocks.group_by("block"):
        ax.plot(*curve(block["latency_ns"].sort(), 60), lw=0.7, alpha=0.35, **style)
    ax.plot(*curve(pooled[name]), lw=2.2, ls=DASHES[i % 8], label=name, **style)
times_on(ax)
ticks = {0.30103: "P50", 1: "P90", 2: "P99", 3: "P99.9", 4: "P99.99", 5: "P99.999"}
shown = [x for x in ticks if x <= ax.get_xlim()[1]]
ax.set_xticks(shown, [ticks[x] for x in shown])
ax.set(xlabel="percentile", ylabel="latency from the planned time")
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
plt.show()

# %% [markdown]
# ## Over time
#
# P50 (solid) and P99 (dotted) per second of planned time, all valid blocks pooled; the warm-up is shaded. Drift here
# means that the cut is too early or the run too short.

# %%
window_ns = max(1, min(1_000_000_000, manifest["duration_ns"] // 12))
over_time = (
    samples.filter(pl.col("latency_ns").is_not_null())
    .with_columns(window=pl.col("planned_ns") // window_ns)
    .group_by("arm", "window")
    .agg(
        p50=pl.col("latency_ns").quantile(0.5, "higher"),
        p99=pl.col("latency_ns").quantile(0.99, "higher"),
        samples=pl.len(),
    )
    .with_columns(seconds=(pl.col("window") + 0.5) * window_ns / 1e9)
    .sort("arm", "window")
    .collect()
)
fig, ax = plt.subplots()
for i, name in enumerate(names):
    line = over_time.filter(pl.col("arm") == name)
    ax.plot(line["seconds"], line["p50"], color=COLOURS[i % 8], lw=2, label=name)
    tail = line.filter(pl.col("samples") >= 100)
    ax.plot(tail["seconds"], tail["p99"], color=COLOURS[i % 8], lw=1.5, ls=":")
ax.axvspan(0, manifest["warmup_ns"] / 1e9, color="#bf8700", alpha=0.15, lw=0)
times_on(ax)
ax.set_xlim(0, manifest["duration_ns"] / 1e9)
ax.set(xlabel="planned time since the run's start, s", ylabel="latency from the planned time")
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
plt.show()

# %% [markdown]
# ## What may be said so far

# %%
print(analysis["finding"])
print(analysis["verdict"])
for why in analysis["verdict_why"]:
    print("-", why)
