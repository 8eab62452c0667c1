"""What compare_peers.py makes of its measurements: roofs, ratios, verdicts, tables.

A test is named by its key: "pass ROWS DEPTH" (ms), "prefill TOKENS" and "decode DEPTH" (tokens per second).
"""

import statistics

from gguf_sizes import attention_operations, cache_bytes, held_cache_bytes

PREFILL_ROWS = 512
PASS_DEPTH = 128  # of rows that do not tell their depth
KV_PAGE = 32      # tokens of one page of our cache (src/kernels/kv_layout.h)
MEMORY_LIMIT_MB = 100
ROOFS = ("read_gb_per_s", "int8_gop_per_s", "float_gop_per_s")


def test_key(row):
    """Key of a row of `dspark bench --json`."""
    if row["test"] == "pass":
        return f"pass {row['rows']} {row.get('depth', PASS_DEPTH)}"
    return f"{row['test']} {row['tokens'] if row['test'] == 'prefill' else row['depth']}"


def test_value(row):
    return row["ms"] if row["test"] == "pass" else row["tokens_per_s"]


def is_time(key):
    return key.startswith("pass")


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def roof_of(key, work, roofs):
    """The best this machine could do: max(bytes / bandwidth, operations / int8 peak).

    Bytes are those of the weights and, for passes and decoding, of the 2-byte cache. Operations are those of the
    weights alone. `roofs`: summaries by name."""
    test, size, *depth = key.split()
    bandwidth = roofs["read_gb_per_s"]["median"] * 1e9
    peak = roofs["int8_gop_per_s"]["median"] * 1e9
    if test == "prefill":
        # The head works for the last row of a pass only.
        rows = int(size)
        passes = -(-rows // PREFILL_ROWS)
        operations = 2 * (work["params"] - work["head_params"]) * rows + 2 * work["head_params"] * passes
        return rows / max(work["bytes"] * passes / bandwidth, operations / peak)
    rows, depth = (int(size), int(depth[0])) if test == "pass" else (1, int(size))
    bytes_read = work["bytes"] + cache_bytes(work["metadata"], depth)
    seconds = max(bytes_read / bandwidth, 2 * work["params"] * rows / peak)
    return seconds * 1e3 if test == "pass" else 1 / seconds


def ratio_of(key, ours, other):
    """How many times faster ours is than the other figure, of a peer or a roof."""
    return other / ours if is_time(key) else ours / other


def test_reports(samples, work, roofs):
    """One dict per test of ours. times_faster: against the better peer. times_roof: ours over the roof in time,
    so 1 is the roof and 2 takes twice as long."""
    peers = [name for name in samples if name != "dspark"]
    tests = []
    for key in samples["dspark"]:
        figures = {name: summary(of_engine[key]) for name, of_engine in samples.items()}
        ours, roof = figures["dspark"]["median"], roof_of(key, work, roofs)
        test = {"test": key, "unit": "ms" if is_time(key) else "tok/s", "engines": figures, "roof": roof,
                "times_roof": 1 / ratio_of(key, ours, roof)}
        if peers:
            test["times_faster"] = min(ratio_of(key, ours, figures[name]["median"]) for name in peers)
        tests.append(test)
    return tests


def attention_report(tests, work, roofs):
    """What passes take longer at the greatest depth than at the smallest: attention's part, in ms by engine and rows.

    Its roof is max(bytes of the cache between the depths / bandwidth, operations / peak of bf16 or f32 products).
    None with one depth only."""
    passes = {key: test["engines"] for key, test in tests.items() if is_time(key)}
    depths = sorted({int(key.split()[2]) for key in passes})
    if len(depths) < 2:
        return None
    low, high = depths[0], depths[-1]
    out = {"from": low, "to": high, "rows": {}}
    for rows in sorted({int(key.split()[1]) for key in passes}):
        shallow, deep = passes.get(f"pass {rows} {low}"), passes.get(f"pass {rows} {high}")
        if shallow is None or deep is None:
            continue
        metadata = work["metadata"]
        bytes_read = cache_bytes(metadata, high) - cache_bytes(metadata, low)
        operations = rows * (attention_operations(metadata, high) - attention_operations(metadata, low))
        seconds = max(bytes_read / (roofs["read_gb_per_s"]["median"] * 1e9),
                      operations / (roofs["float_gop_per_s"]["median"] * 1e9))
        out["rows"][rows] = {"engines": {name: deep[name]["median"] - shallow[name]["median"] for name in deep},
                             "roof": seconds * 1e3}
    return out


def over(figure, base):
    """figure / base; None where a difference of two measurements is lost in their noise."""
    return figure / base if figure > 0 and base > 0 else None


def verdict(what, value, limit=None, most=False, aim=None):
    """One asked figure: at least `limit`, with `most` at most; without a limit it is only told."""
    holds = None
    if limit is not None and value is not None:
        holds = value <= limit if most else value >= limit
    return {"what": what, "value": value, "limit": limit, "most": most, "aim": aim, "holds": holds}


def pass_verdicts(tests):
    depth = min((int(key.split()[2]) for key in tests if is_time(key)), default=None)
    one, four, eight = (tests.get(f"pass {rows} {depth}") for rows in (1, 4, 8))
    found = []
    if eight:
        if "times_faster" in eight:
            found.append(verdict("8 rows, times faster than the better peer", eight["times_faster"], 3))
        found.append(verdict("8 rows over the roof", eight["times_roof"], 1.6, most=True))
    if one and four:
        ratio = four["engines"]["dspark"]["median"] / one["engines"]["dspark"]["median"]
        found.append(verdict("4 rows over 1 row", ratio, 1.4, most=True))
    return found


def speed_verdicts(tests):
    """Of the prompt and of decoding at the smallest depth; at the greatest depth beside its own roof."""
    prefill = next((test for key, test in tests.items() if key.startswith("prefill")), None)
    depths = sorted(int(key.split()[1]) for key in tests if key.startswith("decode"))
    found = []
    if prefill:
        if "times_faster" in prefill:
            found.append(verdict("prefill, times faster than the better peer", prefill["times_faster"], 1.5))
        found.append(verdict("prefill, share of the roof", 1 / prefill["times_roof"], aim=0.6))
    if depths:
        first, last = tests[f"decode {depths[0]}"], tests[f"decode {depths[-1]}"]
        if "times_faster" in first:
            found.append(verdict(f"decode at {depths[0]}, times faster than the better peer", first["times_faster"], 1.8))
        found.append(verdict(f"decode at {depths[0]}, share of the bandwidth roof", 1 / first["times_roof"], aim=0.8))
        if len(depths) > 1:
            found.append(verdict(f"decode at {depths[-1]} over its roof", last["times_roof"], 1.5, most=True))
    return found


def attention_verdicts(attention):
    if not attention or not {1, 8} <= attention["rows"].keys():
        return []
    one, eight = (attention["rows"][rows] for rows in (1, 8))
    ours = eight["engines"]["dspark"]
    return [verdict(f"attention at {attention['to']}, 8 rows over 1 row", over(ours, one["engines"]["dspark"]), 1.5, most=True),
            verdict(f"attention at {attention['to']}, 8 rows over its roof", over(ours, eight["roof"]))]


def memory_report(extra, work):
    """Summaries by engine; for ours also what an answer needs beyond the file and the cache that it filled, in MB."""
    out = {}
    for name, facts in extra.items():
        out[name] = {key: summary(facts[key]) for key in ("peak_rss_mb", "load_s") if facts.get(key)}
        beyond = []
        for answer in facts.get("answers", ()):
            tokens = -(-answer["tokens"] // KV_PAGE) * KV_PAGE
            held = (work["file_bytes"] + held_cache_bytes(work["metadata"], tokens)) / 2**20
            beyond.append(answer["peak_rss_mb"] - held)
        if beyond:
            out[name]["answer_peak_rss_mb"] = summary([answer["peak_rss_mb"] for answer in facts["answers"]])
            out[name]["beyond_mb"] = summary(beyond)
    return out


def model_report(name, threads, entry, work):
    """Results of one model and thread count as plain data. `entry`: samples, roofs and extra as collected."""
    roofs = {key: summary([r[key] for r in entry["roofs"]]) for key in ROOFS}
    tests = test_reports(entry["samples"], work, roofs)
    by_key = {test["test"]: test for test in tests}
    attention = attention_report(by_key, work, roofs)
    memory = memory_report(entry["extra"], work)
    verdicts = pass_verdicts(by_key) + speed_verdicts(by_key) + attention_verdicts(attention)
    if "beyond_mb" in memory.get("dspark", {}):
        verdicts.append(verdict("peak memory - file - cache, MB", memory["dspark"]["beyond_mb"]["median"],
                                MEMORY_LIMIT_MB, most=True))
    return {"model": name, "threads": threads, "weights": {key: value for key, value in work.items() if key != "metadata"},
            "roofs": roofs, "float_kind": entry["roofs"][-1]["float_kind"], "tests": tests, "attention": attention,
            "memory": memory, "verdicts": verdicts}


def cell(figure):
    return f"{figure['median']:.4g} ({figure['min']:.4g}–{figure['max']:.4g})"


def test_label(key):
    test, size, *depth = key.split()
    if test == "pass":
        return f"pass of {size} row{'' if size == '1' else 's'} at {depth[0]}, ms"
    return f"prefill {size}, tok/s" if test == "prefill" else f"decode at {size}, tok/s"


def test_table(row, names):
    lines = ["| test | " + " | ".join(names) + " | times the better peer | roof | times roof |",
             "|---|" + "---|" * (len(names) + 3)]
    for test in row["tests"]:
        figures = " | ".join(cell(test["engines"][name]) for name in names)
        faster = f"{test['times_faster']:.2f}" if "times_faster" in test else "-"
        lines.append(f"| {test_label(test['test'])} | {figures} | {faster} | {test['roof']:.4g} | {test['times_roof']:.2f} |")
    attention = row["attention"]
    for rows, part in (attention["rows"] if attention else {}).items():
        figures = " | ".join(f"{part['engines'][name]:.4g}" for name in names)
        ours = part["engines"]["dspark"]
        faster = [over(part["engines"][name], ours) for name in names if name != "dspark"]
        best = f"{min(faster):.2f}" if faster and None not in faster else "-"
        times = over(ours, part["roof"])
        lines.append(f"| attention, {rows} row{'' if rows == 1 else 's'}, from {attention['from']} to {attention['to']}, ms | "
                     f"{figures} | {best} | {part['roof']:.4g} | {'-' if times is None else f'{times:.2f}'} |")
    return lines


def verdict_line(found):
    value = "lost in the noise" if found["value"] is None else f"{found['value']:.3g}"
    asked = ""
    if found["limit"] is not None:
        holds = {True: "holds", False: "missed", None: "open"}[found["holds"]]
        asked = f" (asked {'<=' if found['most'] else '>='} {found['limit']:g}): {holds}"
    elif found["aim"] is not None:
        asked = f" (aim {found['aim']:g})"
    return f"- {found['what']}: {value}{asked}"


def memory_lines(row):
    megabytes = row["weights"]["file_bytes"] / 2**20
    for name, facts in row["memory"].items():
        parts = []
        if "peak_rss_mb" in facts:
            parts.append(f"peak memory of the whole run {cell(facts['peak_rss_mb'])} MB (file {megabytes:.0f} MB)")
        if "load_s" in facts:
            parts.append(f"loads in {facts['load_s']['median']:.2f} s")
        if "beyond_mb" in facts:
            parts.append(f"a short answer peaks at {cell(facts['answer_peak_rss_mb'])} MB; peak - file - cache = "
                         f"{facts['beyond_mb']['median']:.0f} of {MEMORY_LIMIT_MB} MB")
        if parts:
            yield f"{name}: {'; '.join(parts)}."


def markdown(machine, report_rows, names):
    facts = [machine["cpu"], machine["date"], "commit " + machine["commit"]]
    lines = [", ".join(facts + [f"{name} ({text})" for name, text in machine["versions"].items()]) + ".", ""]
    for row in report_rows:
        roofs = row["roofs"]
        lines += [f"**{row['model']}, {row['threads']} thread(s)**; read {cell(roofs['read_gb_per_s'])} GB/s, "
                  f"int8 {cell(roofs['int8_gop_per_s'])} Gop/s, {row['float_kind']} {cell(roofs['float_gop_per_s'])} Gop/s",
                  "", *test_table(row, names), "", *map(verdict_line, row["verdicts"])]
        for line in memory_lines(row):
            lines += ["", line]
        lines.append("")
    return "\n".join(lines)
