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
# # 5. Claims
#
# RobustMQ's article "Tokio Scheduling Jitter and io_uring" gathers statements about tokio, io_uring and tails, its own and
# Iggy's. Here they are re-tested one by one on this study, on this machine. Each ends *supported*, *refuted* or *cannot
# tell*, with the evidence; what this study does not contain is "cannot tell", never guessed. A statement that is supported
# here holds for this workload and host; the article's machines were others.
#
# The rules are the same for every claim and stand in the code: a comparison counts only with an interval over blocks that
# excludes 1, lanes only from at least five requests with stamps.

# %% tags=["parameters"]
STUDY = None

# %%
import sys

sys.path[:0] = ["lib", "."]
import polars as pl
from regauge_study import LABELS, PPM, STORAGE, TIERS, Study, human, shown

study = Study(STUDY)
print(study.manifest["trace_source"])
print(f"{study.manifest['requests']:,} requests a run, {len(study.names)} arms, {len(study.complete)} complete blocks; base: {study.base}")

if study.invented():
    print()
    print("THE SAMPLES OF THIS STUDY ARE MADE UP. The verdicts below show how the notebook works; they say nothing about any")
    print("runtime or machine. Run it on a study of your own.")
decision = study.decision
today = study.family(study.base)
claims = []


def claim(number, text, source, verdict, evidence):
    assert verdict in ("supported", "refuted", "cannot tell")
    claims.append({"claim": number, "verdict": verdict, "evidence": evidence})
    if study.invented():
        print("(made-up samples)")
    print(f"Claim {number}: {text}\n({source})\n\n{verdict.upper()}: {evidence}")


def comparison(arm, key, step=None):
    step = step or study.step
    found = [c for c in study.analysis["comparisons"] if (c["arm"], c["step"], c["percentile"]) == (arm, step, key)]
    return found[0] if found and found[0]["ratio"] is not None and found[0]["ci_low"] is not None else None


def interval(c):
    return f"{c['ratio']:.2f} [{c['ci_low']:.2f}–{c['ci_high']:.2f}]"


# Arms whose runtime is another than the base's, those of the base's, and thread-per-core ones.
migrations = [arm for arm in study.others() if study.family(arm) != today]
tokio = [arm for arm in study.names if study.family(arm) == "tokio" and arm != study.control]
ring = [arm for arm in study.names if study.stacks[arm] in ("monoio", "compio", "glommio", "uring")]
settings = {arm["name"]: arm["settings"] for arm in study.manifest["arms"]}


def tails(step):
    """{arm: (shares, latency)} of the slowest one percent of a step, where lanes are known."""
    return {arm["arm"]: (group["shares"], group["latency_ns"]) for arm in study.analysis["lanes"]
            for group in arm["groups"] if group["step"] == step and group["at"] == "tail" and group["shares"]}


applied = tails("set_last_applied")
stamped = sorted({group["step"] for arm in study.analysis["lanes"] for group in arm["groups"] if group["shares"]})
print("stamped steps:", ", ".join(stamped) or "none")

# %% [markdown]
# ## 1. "set_last_applied sometimes spikes to 5–11 ms, though it only writes one record"
#
# The symptom. Supported when the write's slowest 1 % take at least 4 ms in the mean (the article's lines show 4.4 to
# 11 ms) on the base arm; refuted when the base has stamps enough and they stay under 1 ms.

# %%
if study.base not in applied:
    verdict, evidence = "cannot tell", "no run of the base arm stamped set_last_applied often enough."
else:
    ns = applied[study.base][1]
    verdict = "supported" if ns >= 4e6 else "refuted" if ns < 1e6 else "cannot tell"
    evidence = f"the slowest 1 % of {study.base}'s set_last_applied take {human(ns)} in the mean."
claim(1, "set_last_applied jitters by milliseconds.", "article, Observation 1", verdict, evidence)

# %% [markdown]
# ## 2. "The 5–11 ms are the time spent waiting to be scheduled onto a tokio worker, not RocksDB being slow"
#
# The article's root cause. In RobustMQ's source the timed interval has no `.await`, so a task's queue cannot be inside it;
# here it is measured. Supported when at least half of the slow calls' time is woken→polled; refuted when at most a tenth
# is. What is asked is the share of time, whatever the calls' length.

# %%
if study.base not in applied:
    verdict, evidence = "cannot tell", "no run of the base arm stamped set_last_applied often enough."
else:
    shares, ns = applied[study.base]
    woken, storage = shares["woken_polled"], sum(shares.get(lane, 0.0) for lane in STORAGE)
    verdict = "supported" if woken >= 0.5 else "refuted" if woken <= 0.1 else "cannot tell"
    evidence = (f"of the slowest 1 % ({human(ns)}) {100 * woken:.0f} % is woken→polled, {100 * storage:.0f} % blocked in "
                f"storage, {100 * shares['runnable']:.0f} % ready without a CPU, {100 * shares['on_cpu']:.0f} % on the CPU.")
claim(2, "The jitter of set_last_applied is tokio's queue.", "article, Root Cause Analysis", verdict, evidence)

# %% [markdown]
# ## 3. "RocksDB's own write latency was consistently under 1 ms"
#
# RobustMQ's metric does not wrap this call, so the statement is about another call than the slow one. Here the blocked time
# inside the call itself is known. Supported when storage takes under 1 ms of the slow calls; refuted when it takes more.

# %%
if study.base not in applied:
    verdict, evidence = "cannot tell", "no run of the base arm stamped set_last_applied often enough."
else:
    shares, ns = applied[study.base]
    parts = {lane: shares.get(lane, 0.0) * ns for lane in STORAGE}
    storage = sum(parts.values())
    verdict = "supported" if storage < 1e6 else "refuted"
    largest = max(parts, key=parts.get)
    evidence = f"{human(storage)} of the slow calls' {human(ns)} are blocked in storage, most of it {largest.replace('_', ' ')}."
claim(3, "RocksDB's write is under 1 ms when set_last_applied is slow.", "article, Background", verdict, evidence)

# %% [markdown]
# ## 4. "session_process is consistently 30–51 ms; raft and gRPC are in it"
#
# CONNECTs pass through gRPC, raft and apply here too. Supported when the base's P99 of CONNECT is at least 30 ms; refuted
# when its whole shown tail lies below 10 ms.

# %%
base = next(arm for arm in study.analysis["arms"] if arm["name"] == study.base)
connect = base["steps"].get("connect", {}).get("latency")
shown_tail = {key: ns for key, ns in (connect or {}).get("percentiles_ns", {}).items() if ns is not None}
durable = settings[study.base].get("durable_sessions")
if not shown_tail:
    verdict, evidence = "cannot tell", "the study has no CONNECTs, or too few for a percentile."
else:
    key = max(shown_tail, key=PPM.get)
    ns = shown_tail[key]
    verdict = "supported" if shown_tail.get("p99", 0) >= 30e6 else "refuted" if PPM[key] >= PPM["p99"] and ns < 10e6 else "cannot tell"
    evidence = f"{LABELS[key]} of CONNECT on {study.base} is {human(ns)}" + (f"; durable_sessions is {durable}." if durable is not None else ".")
claim(4, "A CONNECT takes 30–51 ms because of raft.", "article, Observation 2", verdict, evidence)

# %% [markdown]
# ## 5. "It cannot be solved by tuning parameters inside tokio"
#
# The claim that decides about a migration. Refuted when an arm of tokio other than the base is better than the base by the
# bar (its interval below it, the difference beyond the floor); supported when there are such arms and the intervals of all
# of them exclude a gain of that size. The control does not count, nor does an arm that promises its clients less.

# %%
cells = {cell["arm"]: cell for cell in decision["primary"]}
PROMISES = ("durability", "raft_sync", "durable_sessions", "last_applied")
same = [arm for arm in tokio if all(settings[arm].get(key) == settings[study.base].get(key) for key in PROMISES)]
tuned = [cells[arm] for arm in same if arm != study.base and arm in cells]
bar = study.question["worth_ratio"]
better = [c for c in tuned if c["tier"] == "migration-effect"]
useless = [c for c in tuned if c["ratio"] and c["ratio"]["low"] is not None and c["ratio"]["low"] >= bar]
if not tuned:
    verdict, evidence = "cannot tell", "the study has no further arm of tokio that promises the same: take arms/factorial.toml."
elif better:
    verdict, evidence = "refuted", f"{better[0]['arm']} comes to × {shown(better[0]['ratio'])} of {study.base} with tokio as it is."
elif len(useless) == len(tuned):
    verdict, evidence = "supported", "; ".join(f"{c['arm']} × {shown(c['ratio'])}" for c in tuned) + f": none can reach × {bar}."
else:
    verdict, evidence = "cannot tell", "; ".join(f"{c['arm']} × {shown(c['ratio'])}, {TIERS[c['tier']]}" for c in tuned) + "."
claim(5, "Tokio's jitter cannot be tuned away inside tokio.", "article, Our Thinking", verdict, evidence)

# %% [markdown]
# ## 6. "Thread-per-core on io_uring cuts the tail: P99 by 32–60 %, P9999 by 57–92 %"
#
# Iggy's figures for the change from tokio to compio; their P9999 is a mean of per-client percentiles, of one run, without
# interval, and the versions also differ in when they sync. Here: pooled percentiles. Supported when the interval of
# compio's ratio lies below 0.68 at P99 (the weakest of the claimed gains); refuted when it lies above 0.68.

# %%
compio = [arm for arm in study.names if study.stacks[arm] == "compio"]
found = [(arm, comparison(arm, "p99")) for arm in compio if comparison(arm, "p99")]
high = [(arm, comparison(arm, "p99_99")) for arm in compio if comparison(arm, "p99_99")]
more = "; P99.99: " + ", ".join(f"{arm} {interval(c)}" for arm, c in high) if high else "; P99.99 is refused: too few independent episodes"
if not found or study.family(study.base) != "tokio":
    verdict, evidence = "cannot tell", "the study has no compio arm with an interval at P99 against tokio."
else:
    arm, c = min(found, key=lambda pair: pair[1]["ratio"])
    verdict = "supported" if c["ci_high"] < 0.68 else "refuted" if c["ci_low"] > 0.68 else "cannot tell"
    evidence = f"P99 of {arm} ÷ {study.base}: {interval(c)}{more}."
claim(6, "compio cuts P99 by a third or more.", "article, Post-Migration Performance Data", verdict, evidence)

# %% [markdown]
# ## 7. "The improvement grows towards the tail"
#
# "Throughput improvement is modest, but tail latency improves dramatically." Supported for an arm when its ratio at the
# highest shown percentile lies below its ratio at P50 with intervals that do not overlap; refuted when it is the other way
# round for every such arm.

# %%
rows = []
for arm in ring:
    median = comparison(arm, "p50")
    tail = next((comparison(arm, key) for key in ("p99_99", "p99_9", "p99") if comparison(arm, key)), None)
    if median and tail:
        way = "grows" if tail["ci_high"] < median["ci_low"] else "shrinks" if tail["ci_low"] > median["ci_high"] else "open"
        rows.append((arm, way, f"{arm}: P50 {interval(median)}, {LABELS[tail['percentile']]} {interval(tail)}"))
if not rows:
    verdict, evidence = "cannot tell", "no arm on io_uring has an interval at P50 and in the tail."
else:
    ways = {way for _, way, _ in rows}
    verdict = "supported" if ways == {"grows"} else "refuted" if ways == {"shrinks"} else "cannot tell"
    evidence = "; ".join(text for *_, text in rows) + "."
claim(7, "The gain grows towards the tail.", "article, Key pattern", verdict, evidence)

# %% [markdown]
# ## 8. "The more load, the greater the improvement"
#
# Needs several loads. Supported when the ratio at the highest load lies below that at the lowest with intervals that do not
# overlap, for every io_uring arm; refuted when it is the other way round.

# %%
curves = decision["loads"]
rows = []
for arm in ring if curves else []:
    cells_of = [(row["share"], next((c["ratio"] for c in row["cells"] if c["arm"] == arm), None)) for row in curves["loads"]]
    cells_of = [(share, r) for share, r in cells_of if r and r["low"] is not None]
    if len(cells_of) >= 2:
        (low_share, low), (high_share, high_load) = cells_of[0], cells_of[-1]
        way = "grows" if high_load["high"] < low["low"] else "shrinks" if high_load["low"] > low["high"] else "open"
        rows.append((way, f"{arm}: {100 * low_share:.0f} % {shown(low)}, {100 * high_share:.0f} % {shown(high_load)}"))
if not rows:
    verdict, evidence = "cannot tell", "the study ran at one load; `--load 0.25,0.5,0.75,0.9` measures several."
else:
    ways = {way for way, _ in rows}
    verdict = "supported" if ways == {"grows"} else "refuted" if ways == {"shrinks"} else "cannot tell"
    evidence = "; ".join(text for _, text in rows) + "."
claim(8, "The more load, the larger the gain.", "article, Key pattern", verdict, evidence)

# %% [markdown]
# ## 9. "With fsync, throughput rises by 18 %"
#
# Iggy's 18 % is a sum of per-client rates; by makespan it is about 5 % at 16 producers and −3 % at 32. An open-loop replay
# offers the same rate to every arm, so throughput differs only where an arm cannot keep up; how much one *could* do is its
# knee. Needs knees of tokio and compio. Supported when compio's knee lies at least 10 % above tokio's even with the
# search's brackets against it; refuted when it lies below.

# %%
knees = {arm: (kept, missed) for arm, kept, missed, limited in (curves["knees"] if curves else []) if limited == "server"}
pair = next(((study.base, arm) for arm in compio if arm in knees and study.base in knees), None)
if not pair or not all(all(knees[arm]) for arm in pair):
    verdict, evidence = "cannot tell", "the study sought no knee of tokio and compio that the server limited."
else:
    (base_kept, base_missed), (kept, missed) = knees[pair[0]], knees[pair[1]]
    verdict = "supported" if kept >= 1.1 * base_missed else "refuted" if missed <= base_kept else "cannot tell"
    evidence = f"{pair[1]} keeps up at {kept:,.0f}/s, {pair[0]} at {base_kept:,.0f}/s (not at {missed:,.0f} and {base_missed:,.0f}/s)."
    evidence += f" Durability: {settings[study.base].get('durability')}."
claim(9, "Throughput with fsync rises by 18 %.", "article, table, last rows", verdict, evidence)

# %% [markdown]
# ## 10. "Work stealing itself costs the tail; thread-per-core removes that"
#
# tokio with one runtime per core differs from tokio with work stealing in scheduling alone. Supported when tokio-pinned's
# ratio at the primary percentile lies below 0.91, refuted when it lies above it. Settings that differ besides are named.

# %%
pinned = [arm for arm in study.names if study.stacks[arm] == "tokio-pinned"]
found = [(arm, comparison(arm, study.percentile)) for arm in pinned if comparison(arm, study.percentile)]
if study.stacks[study.base] != "tokio-shared" or not found:
    verdict, evidence = "cannot tell", "the study does not compare tokio-pinned with tokio-shared at the primary percentile."
else:
    arm, c = found[0]
    verdict = "supported" if c["ci_high"] < 0.91 else "refuted" if c["ci_low"] > 0.91 else "cannot tell"
    differ = [key for key in settings[arm] if settings[arm][key] != settings[study.base].get(key)]
    evidence = f"{study.primary_name()} of {arm} ÷ {study.base}: {interval(c)}; settings that differ: {', '.join(differ) or 'none'}."
claim(10, "Work stealing costs the tail.", "article, Problem 1", verdict, evidence)

# %% [markdown]
# ## 11. "File I/O through tokio's blocking pool becomes a bottleneck with queueing"
#
# Where the publishes' tail of the base waits. Supported when queueing and the runtime's queue together hold at least half
# of it while the arm offloads file I/O to a pool; refuted at a tenth or less.

# %%
published = tails("publish")
placement = settings[study.base].get("placement")
if study.base not in published or placement != "offload" or today != "tokio":
    verdict, evidence = "cannot tell", "no stamped publishes on a tokio arm that offloads its file I/O."
else:
    shares, ns = published[study.base]
    waiting = shares["queued"] + shares["woken_polled"]
    verdict = "supported" if waiting >= 0.5 else "refuted" if waiting <= 0.1 else "cannot tell"
    storage = sum(shares.get(lane, 0.0) for lane in STORAGE)
    evidence = (f"of the slowest 1 % of publishes on {study.base} ({human(ns)}) {100 * shares['queued']:.0f} % is queued and "
                f"{100 * shares['woken_polled']:.0f} % woken→polled, {100 * storage:.0f} % blocked in storage.")
claim(11, "The blocking pool queues.", "article, Problem 2", verdict, evidence)

# %% [markdown]
# ## 12. "monoio reads sequentially at 15 instead of 10–12 GB/s"
#
# A statement about reading segment files. Replays write; nothing here reads segments at full speed.

# %%
claim(12, "monoio raises sequential read throughput by a quarter.", "article, Phase 2", "cannot tell",
      "no study reads segments: the workload has none of these requests.")

# %% [markdown]
# ## 13. "A migration is the answer"
#
# The article does not claim it, it asks. The study's own verdict answers for this workload and host.

# %%
verdicts = {"MIGRATE": "supported", "STAY": "refuted", "FIX IN PLACE": "refuted"}
claim(13, "This broker should leave tokio for its tail.", "article, Our Thinking",
      verdicts.get(decision["verdict"], "cannot tell"), f"{decision['verdict']}: {decision['headline']}")

# %% [markdown]
# ## All of them

# %%
pl.Config.set_fmt_str_lengths(200)
pl.Config.set_tbl_width_chars(170)
table = pl.DataFrame(claims)
display(table)
if study.invented():
    print("of made-up samples:", end=" ")
print({verdict: sum(c["verdict"] == verdict for c in claims) for verdict in ("supported", "refuted", "cannot tell")})
