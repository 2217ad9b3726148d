"""A reader of the trace format that knows nothing but SPEC.md: needs pyarrow, no Regauge.

    python read_trace.py TRACE

Reads either form, verifies every checksum, and prints what `regauge trace info --json` would say of the workload.
"""

import hashlib
import json
import struct
import sys
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

# Name, struct code ("s": string), nullable: section 3.
COLUMNS = [
    ("id", "<Q", False), ("parent", "<Q", True), ("kind", "s", False), ("start_ns", "<Q", False),
    ("duration_ns", "<Q", True), ("busy_ns", "<Q", True), ("session", "<Q", True), ("connection", "<I", True),
    ("target", "s", True), ("bytes", "<Q", False), ("count", "<I", False), ("qos", "<B", False),
    ("flags", "<I", False), ("status", "<B", False), ("keep_alive_s", "<H", False), ("expiry_s", "<I", False),
    ("thread", "<I", False),
]  # fmt: skip
ROOTS = {
    "connect", "publish", "subscribe", "unsubscribe", "ping", "disconnect", "close",
    "raft_proposal", "segment_append", "segment_read",
}  # fmt: skip


def text(value):
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded


def canonical(row):
    """Section 6.2."""
    parts = []
    for name, code, nullable in COLUMNS:
        value = row[name]
        if nullable:
            parts.append(b"\0" if value is None else b"\1")
        if value is not None:
            parts.append(text(value) if code == "s" else struct.pack(code, value))
    return b"".join(parts)


def verify(rows, entries, what):
    crc = 0
    for row in rows:
        crc = zlib.crc32(canonical(row), crc)
    crc = zlib.crc32(entries[b"regauge"], crc)
    if f"{crc:08x}".encode() != entries[b"regauge.crc32"]:
        sys.exit(f"{what} does not have its checksum")


def read(path):
    """Metadata and rows of a trace in either form."""
    with open(path, "rb") as file:
        sealed = file.read(4) == b"PAR1"
    if sealed:
        table = pq.read_table(path)
        entries = pq.read_metadata(path).metadata
        rows = table.to_pylist()
        verify(rows, entries, "the file")
        return json.loads(entries[b"regauge"]), rows
    rows = []
    with pa.OSFile(path) as file:
        reader = pa.ipc.open_stream(file)
        verify([], reader.schema.metadata, "the header")
        meta = json.loads(reader.schema.metadata[b"regauge"])
        while True:
            try:
                batch, entries = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                return meta, rows
            except (pa.ArrowInvalid, OSError) as error:
                # Section 8. (A full reader would also check that nothing but this batch is lost.)
                print(f"torn tail: {error}", file=sys.stderr)
                return meta, rows
            batch_rows = batch.to_pylist()
            verify(batch_rows, entries, "a batch")
            state = json.loads(entries[b"regauge"])
            meta |= {"drops": state["drops"], "end": state["now"], "finished": state["finished"]}
            rows += batch_rows


def workload_hash(rows):
    """Section 11."""
    sha = hashlib.sha256(b"regauge workload 1\n")
    roots = [row for row in rows if row["kind"] in ROOTS and row["parent"] is None]
    for row in sorted(roots, key=lambda row: (row["start_ns"], row["id"])):
        sha.update(text(row["kind"]) + struct.pack("<Q", row["start_ns"]))
        for name, code in (("session", "<BQ"), ("connection", "<BI")):
            sha.update(struct.pack(code, row[name] is not None, row[name] or 0))
        sha.update(struct.pack("<B", row["target"] is not None) + text(row["target"] or ""))
        sha.update(struct.pack("<QIBI", row["bytes"], row["count"], row["qos"], row["flags"] & 0x7F))
        sha.update(struct.pack("<HI", row["keep_alive_s"], row["expiry_s"]))
    return sha.hexdigest(), len(roots)


def main():
    meta, rows = read(sys.argv[1])
    if meta["schema_version"] > 2:
        sys.exit(f"schema version {meta['schema_version']} is newer than 2")
    name, roots = workload_hash(rows)
    kinds = {}
    for row in rows:
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    facts = {"spans": len(rows), "roots": roots, "kinds": kinds, "workload_hash": name, "meta": meta}
    print(json.dumps(facts, indent=2))


main()
