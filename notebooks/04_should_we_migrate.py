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
# # 4. Should we migrate?
#
# The decision, and the same decision by hand: the primary ratio, its interval and the A/A control are computed again from
# the raw samples with a few lines of Python, and must come out as in `analysis.json`.

# %% tags=["parameters"]
STUDY = None

# %%
import sys

sys.path[:0] = ["lib", "."]
import math

import matplotlib.pyplot as plt
import polars as pl
from regauge_study import COLOURS, MARKS, PPM, TIERS, Study, quantile, ratio, shown

study = Study(STUDY)
print(study.manifest["trace_source"])
print(f"{study.manifest['requests']:,} requests a run, {len(study.names)} arms, {len(study.complete)} complete blocks; base: {study.base}")

decision, question = study.decision, study.question
print()
print(decision["verdict"])
print(decision["headline"])

# %% [markdown]
# ## What was asked, before the first run

# %%
print(f"Does an arm bring {study.primary_name()} below × {question['worth_ratio']} of {study.base}, and by more than "
      f"{question['floor_ms']} ms?")
print(f"equivalent: × {question['equivalent_low']} to {question['equivalent_high']}; objective: {question['slo_ms']} ms; "
      f"control: {study.control or 'none'}")
print("fixed before the first run" if question["registered"] else "NOT fixed before the first run: no verdict can rest on it")
if question["peeked"]:
    print("blocks were added after results could be seen, and not by the sizing rule: no verdict can rest on it")

# %% [markdown]
# ## The primary ratio, by hand
#
# θ = ln q(arm) − ln q(base) of the pooled percentile (the sample of rank ⌈N·p⌉); θ₋b the same without block b; se² =
# (R−1)/R · Σ(θ₋b − mean)²; the interval is exp(θ ± t·se) with R−1 degrees of freedom. Only complete blocks count: those
# in which every arm's run is valid. The library works on histograms of three digits, so the two may differ by 0.1 %.

# %%
ppm = PPM[study.percentile]
latencies = study.latencies(complete=True)
library = {cell["arm"]: cell for cell in decision["primary"]}
sized = any(stage.get("sized") for stage in study.manifest.get("stages", []))
by_hand, rows, disagree = {}, [], []
for arm in study.names:
    if arm == study.base or not set(latencies[arm]) & set(latencies[study.base]):
        continue
    by_hand[arm] = ratio(latencies[arm], latencies[study.base], ppm)
    cell = library.get(arm)
    theirs = cell["ratio"] if cell else None
    if arm == study.control and decision["control"]:
        theirs = decision["control"]["ratio"]
    if theirs:
        pairs = [(by_hand[arm][0], theirs["value"])]
        # In a sized study the interval is Stein's, with the first stage's variance.
        pairs += [] if sized else list(zip(by_hand[arm][1:], (theirs["low"], theirs["high"])))
        off = max((abs(a / b - 1) for a, b in pairs if a and b), default=0.0)
        verdict = "agrees" if off < 0.02 else f"DIFFERS by {100 * off:.1f} %"
        if off >= 0.02:
            disagree.append(arm)
    else:
        verdict = "no number there" + (f": {cell['why']}" if cell else "")
    rows.append({"arm": arm, "by hand": shown(by_hand[arm]), "analysis.json": shown(theirs), "": verdict})
if rows:
    display(pl.DataFrame(rows))
else:
    print("No complete block, so there is no primary ratio to compute.")
assert not disagree, f"the library and the hand disagree for {disagree}"

# %%
if by_hand:
    fig, ax = plt.subplots(figsize=(9, 0.55 * len(by_hand) + 1.4))
    ax.axvspan(question["equivalent_low"], question["equivalent_high"], color="#007a58", alpha=0.15, lw=0)
    ax.axvline(1, color="#24292f", lw=1)
    ax.axvline(question["worth_ratio"], color="#24292f", lw=1, ls="--")
    for y, (arm, (value, low, high)) in enumerate(reversed(by_hand.items())):
        i = study.series(arm)
        if low:
            ax.plot([low, high], [y, y], color=COLOURS[i % 8], lw=2.2)
        ax.plot(value, y, marker=MARKS[i % 4], color=COLOURS[i % 8], ms=9)
        tier = library.get(arm, {}).get("tier")
        tier = TIERS[tier] if tier else "control (A/A)" if arm == study.control else ""
        ax.annotate(tier, (high or value, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=10)
    ax.set_yticks(range(len(by_hand)), list(reversed(by_hand)))
    ax.set(xscale="log", xlabel=f"{study.primary_name()}, ratio to {study.base}; dashed: the bar; green: equivalent",
           ylim=(-0.6, len(by_hand) - 0.4))
    ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    ax.minorticks_off()
    low, high = ax.get_xlim()
    ax.set_xlim(low, high * 1.25)
    plt.show()

# %% [markdown]
# ## One block at a time
#
# The interval rests on the blocks' spread, so here they are: each block's own ratio. If one block makes the result, it
# shows here; the library then says "runs too unlike" and gives no verdict.

# %%
if by_hand:
    fig, ax = plt.subplots(figsize=(9, 3.8))
    for arm in by_hand:
        blocks = sorted(set(latencies[arm]) & set(latencies[study.base]))
        own = [quantile(latencies[arm][b], ppm) / quantile(latencies[study.base][b], ppm) for b in blocks]
        i = study.series(arm)
        ax.plot(range(len(blocks)), own, marker=MARKS[i % 4], ls=":", lw=1, color=COLOURS[i % 8], label=arm)
    ax.axhline(1, color="#24292f", lw=1)
    ax.set_xticks(range(len(study.complete)), study.complete)
    ax.set(yscale="log", xlabel="block", ylabel="ratio within the block")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
    ax.yaxis.set_minor_formatter(lambda v, _: f"{v:g}×" if round(v, 2) in (0.2, 0.3, 0.5, 0.7, 2, 3, 5) else "")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    plt.show()

# %% [markdown]
# ## The A/A control
#
# The same code under another name. Whatever ratio it shows is what this setup shows between equals.

# %%
control = decision["control"]
if not control:
    print("No arm repeats the base: which ratio this setup shows between equals is not known.")
else:
    print(f"{control['arm']} ÷ {study.base}: {shown(control['ratio'])}; noise floor "
          + (f"± {100 * control['floor']:.0f} %" if control["floor"] is not None else "unknown")
          + (f"; smallest adjusted p {control['smallest_p']:.2f}" if control["smallest_p"] is not None else ""))
    print("trusted" if control["trusted"] else "NOT trusted: " + " ".join(control["why"]))

# %% [markdown]
# ## Today's runtime first
#
# A migration must beat the best arm of today's runtime that promises the same, not only the base.

# %%
today = study.family(study.base)
print("arms of today's runtime:", ", ".join(a for a in study.names if study.family(a) == today and a != study.control))
print("best of them by the primary percentile:", decision["best_of_today"] or "not known")
for cell in decision["against_today"]:
    print(f"  {cell['arm']} ÷ {cell['against']}: {shown(cell['ratio'])}, {TIERS[cell['tier']]}")
for sentence in decision["no_alternatives"]:
    print("  no alternative:", sentence)

# %% [markdown]
# ## How many blocks would it take?
#
# s = se·√R of the log-ratio; a half-width of x takes R = ⌈(t·s / ln(1+x))²⌉ blocks (Stein). What more blocks cannot mend:
# a bar that lies within the interval because the effect is just that large.

# %%
for arm, (value, low, high) in by_hand.items():
    if low is None:
        continue
    half = (math.log(high) - math.log(low)) / 2
    blocks = len(set(latencies[arm]) & set(latencies[study.base]))
    needs = {f"± {int(100 * x)} %": max(10, math.ceil(blocks * (half / math.log(1 + x)) ** 2)) for x in (0.1, 0.2, 0.3)}
    print(f"{arm}: ± {100 * (math.exp(half) - 1):.0f} % with {blocks} blocks; " + ", ".join(f"{n} blocks for {x}" for x, n in needs.items()))
if decision["sizing"]:
    print("the study's own sizing:", decision["sizing"])

# %% [markdown]
# ## So

# %%
print(decision["verdict"])
print(decision["headline"])
for name, sentences in (("Why", decision["why"]), ("What would change it", decision["would_change"]),
                        ("Trade-offs", decision["trade_offs"]), ("Threats", decision["threats"])):
    if sentences:
        print(f"\n{name}")
        for sentence in sentences:
            print("-", sentence)
