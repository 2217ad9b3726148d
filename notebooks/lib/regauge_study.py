"""A study for the notebooks: its files as polars frames, its decision as a dict, and one style for all figures.

Nothing is decided here. The procedures stand in the library (`regauge analyze`), and what this module computes is what
a reader needs to check them by hand: a percentile, a jackknife, an axis.
"""

import json
import math
import os
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

WARMUP = 1
PPM = {"p50": 500_000, "p90": 900_000, "p99": 990_000, "p99_9": 999_000, "p99_99": 999_900}
LABELS = {"p50": "P50", "p90": "P90", "p99": "P99", "p99_9": "P99.9", "p99_99": "P99.99"}
COLOURS = ["#24292f", "#0062a8", "#c24e00", "#007a58", "#a83d83", "#7a6200", "#2a7f9e", "#8a4b2a"]
DASHES = ["-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)), (0, (10, 3)), (0, (4, 1, 1, 1)), (0, (1, 3)),
          (0, (9, 2, 3, 2))]
MARKS = ["o", "s", "^", "D"]
LANES = {
    "driver_lag": ("driver lag", "#b9bec5"), "network": ("network", "#56a3d9"), "queued": ("queued", "#e8c547"),
    "woken_polled": ("woken→polled", "#b5478d"), "runnable": ("runnable", "#d9631e"), "on_cpu": ("on CPU", "#1d8a68"),
    "storage": ("storage", "#22508a"), "unattributed": ("unattributed", "#ffffff"),
}
STORAGE = ["wal", "memtable", "delay", "thread_wait", "other_storage"]
TIERS = {
    "migration-effect": "beyond the bar", "better-below-bar": "better, below the bar", "equivalent": "equivalent",
    "worse": "worse", "inconclusive": "inconclusive", "run-heterogeneous": "runs too unlike", "refused": "refused",
}
# t(0.975) by degrees of freedom; beyond the table the next smaller entry is used, which is the wider interval.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
         11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 17: 2.110, 19: 2.093, 24: 2.064, 29: 2.045, 39: 2.023,
         59: 2.001, 99: 1.984}

pl.Config.set_tbl_hide_dataframe_shape(True)
pl.Config.set_tbl_hide_column_data_types(True)
pl.Config.set_fmt_str_lengths(110)
pl.Config.set_tbl_rows(60)
pl.Config.set_tbl_cols(20)
pl.Config.set_tbl_width_chars(160)
plt.rcParams.update({
    "figure.figsize": (9, 4.6), "axes.grid": True, "grid.alpha": 0.25, "font.size": 11, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "figure.dpi": 80, "svg.fonttype": "none",
})


def where(parameter=None):
    """The study's directory: a parameter, REGAUGE_STUDY, the directory above, or the sample."""
    asked = parameter or os.environ.get("REGAUGE_STUDY")
    candidates = [Path(asked)] if asked else [Path(".."), Path("sample-study")]
    for path in candidates:
        if (path / "study.json").is_file():
            return path
    raise FileNotFoundError(f"{candidates[0]} is not a study: it holds no study.json")


class Study:
    """What a study's directory holds."""

    def __init__(self, parameter=None):
        self.dir = where(parameter)
        if not (self.dir / "analysis.json").is_file():
            raise FileNotFoundError(f"{self.dir} has no analysis.json: run `regauge analyze {self.dir}` first")
        self.manifest = json.loads((self.dir / "study.json").read_text())
        self.analysis = json.loads((self.dir / "analysis.json").read_text())
        self.decision = self.analysis["decision"]
        self.question = self.decision["question"]
        self.base = self.analysis["base"]
        self.control = self.question.get("control")
        self.names = [arm["name"] for arm in self.analysis["arms"]]
        self.stacks = {arm["name"]: arm["stack"] for arm in self.analysis["arms"]}
        records = [json.loads(path.read_text()) for path in sorted(self.dir.glob("runs/block=*/arm=*/run.json"))]
        self.records = records
        self.runs = pl.DataFrame([{"block": r["block"], "arm": r["arm"], "valid": r["valid"]} for r in records])
        valid = self.runs.filter("valid")
        counts = valid.group_by("block").len().filter(pl.col("len") == len(self.names))
        self.complete = sorted(counts["block"].to_list())
        if self.decision["blocks"]["complete"] != len(self.complete):
            raise ValueError(f"{self.dir} has other runs than its analysis.json: run `regauge analyze {self.dir}` again")
        self.step, self.percentile = self.question["primary_step"], self.question["primary_percentile"]
        self.cut_ns = max(self.manifest["warmup_ns"], self.decision["steady"]["cut_ns"])

    def invented(self):
        """Whether the latencies are made up, as those of the sample study are."""
        return any(word in self.manifest["trace_source"] for word in ("made up", "not a measurement"))

    def series(self, arm):
        """Number of an arm in every figure; the base is 0."""
        return self.names.index(arm)

    def style(self, arm):
        i = self.series(arm)
        return {"color": COLOURS[i % 8], "ls": DASHES[i % 8]}

    def family(self, arm):
        return self.stacks[arm].split("-")[0]

    def others(self):
        """Arms that are neither the base nor its repetition."""
        return [name for name in self.names if name not in (self.base, self.control)]

    def scan(self, name, valid_only=True):
        """A file of all runs, with block and arm as columns; `None` when no run has it."""
        paths = []
        for record in self.records:
            if valid_only and not record["valid"]:
                continue
            path = self.dir / f"runs/block={record['block']:03}/arm={record['arm']}/{name}"
            if path.is_file():
                paths.append(pl.scan_parquet(path, hive_partitioning=False).with_columns(
                    block=pl.lit(record["block"], pl.Int64), arm=pl.lit(record["arm"])))
        return pl.concat(paths, how="diagonal_relaxed") if paths else None

    def requests(self):
        """One row per planned request of every valid run."""
        return self.scan("requests.parquet")

    def measured(self, complete=False):
        """Requests after the cut with a right reply: an error is never a latency."""
        rows = self.requests().filter(
            (pl.col("flags") & WARMUP == 0) & (pl.col("planned_ns") >= self.cut_ns) & pl.col("latency_ns").is_not_null())
        return rows.filter(pl.col("block").is_in(self.complete)) if complete else rows

    def latencies(self, step=None, complete=True):
        """{arm: {block: sorted latencies}} of a step; `all` is every step."""
        step = step or self.step
        rows = self.measured(complete).select("arm", "block", "step", "latency_ns")
        if step != "all":
            rows = rows.filter(pl.col("step") == step)
        found = {name: {} for name in self.names}
        for (arm, block), part in rows.collect().group_by("arm", "block", maintain_order=True):
            found[arm][block] = part["latency_ns"].sort()
        return found

    def lane_rows(self):
        """One row per request with its lanes, of runs with stamps; `None` without any."""
        files = sorted(self.dir.glob("tables/lanes/block=*/arm=*/lanes.parquet"))
        return pl.read_parquet(files, hive_partitioning=True) if files else None

    def primary_name(self):
        what = "all requests" if self.step == "all" else self.step
        return f"{LABELS[self.percentile]} of {what}"


def rank(total, ppm):
    """⌈N·p⌉ in integers, from 1."""
    return max(1, -(-total * ppm // 1_000_000))


def quantile(values, ppm):
    """The sample of rank ⌈N·p⌉ of sorted values."""
    return values[rank(len(values), ppm) - 1]


def pooled(blocks, without=None):
    """Sorted values of several blocks, all but one if asked."""
    return pl.concat([values for block, values in blocks.items() if block != without]).sort()


def t_975(df):
    return T_975[max(known for known in T_975 if known <= df)]


def jackknife(theta, left_out):
    """(estimate, low, high) of exp θ from θ and the θ with one block left out each."""
    r = len(left_out)
    if r < 2:
        return math.exp(theta), None, None
    mean = sum(left_out) / r
    se = math.sqrt((r - 1) / r * sum((x - mean) ** 2 for x in left_out))
    half = t_975(r - 1) * se
    return math.exp(theta), math.exp(theta - half), math.exp(theta + half)


def ratio(arm, base, ppm):
    """The pooled percentile of an arm over that of the base, with the interval that leaves out whole blocks."""
    blocks = sorted(set(arm) & set(base))
    arm, base = ({block: side[block] for block in blocks} for side in (arm, base))

    def theta(without=None):
        return math.log(quantile(pooled(arm, without), ppm)) - math.log(quantile(pooled(base, without), ppm))

    return jackknife(theta(), [theta(block) for block in blocks] if len(blocks) > 1 else [])


def human(ns, _=None):
    """A time with its unit."""
    if ns is None:
        return "–"
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if abs(ns) >= 0.9995 * scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


def shown(estimate):
    """An estimate of the library or of `ratio`, with its interval."""
    if estimate is None:
        return "–"
    value, low, high = (estimate["value"], estimate["low"], estimate["high"]) if isinstance(estimate, dict) else estimate
    return f"{value:.2f} [{low:.2f}–{high:.2f}]" if low is not None else f"{value:.2f} [no interval]"


def times_on(axis):
    """A logarithmic axis of times."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    if 0 < low and high / low < 4:
        # Within less than an octave or two there would be no tick at a round time.
        low, high = low / 2, high * 2
        axis.set_view_interval(low, high, ignore=True)
    decades = math.log10(max(high, 1) / max(low, 1)) if low > 0 else 3
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)))
    axis.set_major_formatter(FuncFormatter(human))
    axis.set_minor_formatter(NullFormatter())


def nines_on(ax, last):
    """A horizontal axis of percentiles, one step per nine."""
    ticks = {0.30103: "P50", 1: "P90", 2: "P99", 3: "P99.9", 4: "P99.99", 5: "P99.999"}
    at = [x for x in ticks if x <= last + 1e-9]
    ax.set_xticks(at, [ticks[x] for x in at])
    ax.set_xlabel("percentile, one step per nine")


def nines(total, points=120, last=5.0):
    """Places along that axis from P10 to the last sample."""
    end = min(last, math.log10(max(total, 2)))
    return [0.0458 + (end - 0.0458) * i / points for i in range(points + 1)]


def curve(values, points=160):
    """(nines, latency) of sorted values."""
    at = nines(len(values), points)
    return at, [quantile(values, round((1 - 10**-x) * 1e6)) for x in at]


def legend_above(ax, **options):
    ax.legend(**{"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, **options})
