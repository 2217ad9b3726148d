"""The same percentile table by DuckDB and by pandas: each as its own documentation would have it.

`peers.py (duckdb-cont|duckdb-disc|pandas) DIR` prints JSON: the seconds from opening the files to the table (without
starting Python and importing), and the table, ns. Both read only the columns that they need, take arm and block from the
directories' names, use all CPUs as far as they do so by themselves, and leave out warm-up and requests without a reply.
"""

import glob
import json
import sys
import time

PERCENTILES = [0.5, 0.9, 0.99, 0.999, 0.9999]
WARMUP = 1


def duckdb_table(directory, function):
    import duckdb

    begin = time.perf_counter()
    rows = duckdb.connect().execute(
        f"""
        select arm, step, {function}(latency_ns, {PERCENTILES})
        from read_parquet('{directory}/runs/*/*/requests.parquet', hive_partitioning = true)
        where latency_ns is not null and (flags & {WARMUP}) = 0
        group by arm, step
        """
    ).fetchall()
    return time.perf_counter() - begin, {f"{arm}/{step}": list(values) for arm, step, values in rows}


def pandas_table(directory):
    import pandas as pd

    begin = time.perf_counter()
    frame = pd.read_parquet(
        sorted(glob.glob(f"{directory}/runs/*/*/requests.parquet")),
        columns=["arm", "step", "latency_ns", "flags"],
        filters=[("latency_ns", ">=", 0)],
        # Steps as categories: with a string per row pandas takes several times as long and as much memory.
        read_dictionary=["step"],
    )
    frame = frame[(frame["flags"] & WARMUP) == 0]
    quantiles = frame.groupby(["arm", "step"], observed=True)["latency_ns"].quantile(PERCENTILES).unstack()
    seconds = time.perf_counter() - begin
    return seconds, {f"{arm}/{step}": list(values) for (arm, step), values in zip(quantiles.index, quantiles.values)}


def main():
    engine, directory = sys.argv[1:]
    engines = {
        "duckdb-cont": lambda: duckdb_table(directory, "quantile_cont"),
        "duckdb-disc": lambda: duckdb_table(directory, "quantile_disc"),
        "pandas": lambda: pandas_table(directory),
    }
    if engine not in engines:
        sys.exit(f"peers.py: no engine is called {engine}; say one of {', '.join(engines)}")
    seconds, table = engines[engine]()
    json.dump({"seconds": seconds, "table": {k: [float(v) for v in values] for k, values in table.items()}}, sys.stdout)


if __name__ == "__main__":
    main()
