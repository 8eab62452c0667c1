"""Reports of `dspark bench load` and `dspark bench schedule` as Markdown: every column that they have."""

import statistics

PARTS_OF_TIME = ("draft_s", "forward_s", "commit_s", "loop_s", "outside_s")


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(row) + " |" for row in rows)]


def load_key(report):
    return "concurrency" if report.get("arrivals", "closed") == "closed" else "rate"


def load_name(report):
    return "clients" if load_key(report) == "concurrency" else "requests/s"


def median_ms(cell, times, quantiles):
    """Medians over rounds of quantiles."""
    return " / ".join(f"{statistics.median(one[times][q] for one in cell['rounds']) * 1e3:.{1 if times == 'ttft_s' else 2}f}"
                      for q in quantiles)


def speed_table(reports):
    """Speeds and waits, a row for every load and policy."""
    rows = []
    for report in reports:
        for cell in report["cells"]:
            speed = cell["tokens_per_s"]
            rows.append([f"{cell[load_key(report)]:g}", cell["policy"], str(cell["requests"]),
                         f"{speed['median']:.1f} ({speed['min']:.1f}-{speed['max']:.1f})", f"{cell['user_tokens_per_s']:.1f}",
                         median_ms(cell, "ttft_s", ("p50", "p95", "p99")),
                         median_ms(cell, "inter_token_s", ("p50", "p95", "p99")), median_ms(cell, "update_gap_s", ("p50", "p99"))])
    return table([load_name(reports[0]), "policy", "requests", "total tok/s (least-most)", "tok/s of one user",
                  "TTFT p50 / p95 / p99 ms", "token p50 / p95 / p99 ms", "update p50 / p99 ms"], rows)


def prediction(cell, kind):
    """Measured over predicted and its error; empty where nothing was predicted."""
    rounds = [one[kind] for one in cell["rounds"] if one[kind]["steps"] > 0]
    if not rounds:
        return ""
    ratio = statistics.median(one["measured_over_predicted"] for one in rounds)
    error = statistics.median(one["prediction_error"] for one in rounds)
    return f"{ratio:.2f} ({100 * error:.0f} %; {sum(one['steps'] for one in rounds)})"


def draft_table(reports):
    """What became of drafts, predictions and where the time went: sums over rounds, ratios of sums or medians."""
    rows = []
    for report in reports:
        for cell in report["cells"]:
            rounds = cell["rounds"]
            spec = {key: sum(one["speculation"][key] for one in rounds)
                    for key in ("rounds", "drafted", "verified", "trimmed", "accepted")}
            seconds = sum(one["seconds"] for one in rounds)
            shares = ", ".join(f"{100 * sum(one[part] for one in rounds) / seconds:.1f}" for part in PARTS_OF_TIME)
            tokens = (spec["rounds"] + spec["accepted"]) / spec["rounds"] if spec["rounds"] else 0.0
            rows.append([f"{cell[load_key(report)]:g}", cell["policy"],
                         *(str(spec[key]) for key in ("drafted", "verified", "trimmed", "accepted")), f"{tokens:.2f}",
                         f"{statistics.median(one['verified_per_sequence'] for one in rounds):.2f}",
                         str(sum(one["steps"] for one in rounds)), prediction(cell, "steps_without_prompts"),
                         prediction(cell, "steps_with_prompts"), shares, str(sum(one["prefix_tokens"] for one in rounds)),
                         str(sum(one["preemptions"] for one in rounds)), "cut" if any(one["cut"] for one in rounds) else ""])
    return table([load_name(reports[0]), "policy", "drafted", "verified", "trimmed", "accepted", "tok/round", "verified/seq", "steps",
                  "measured / predicted (error; steps)", "the same beside prompts", "draft, pass, commit, loop, outside %",
                  "prefix tokens", "preempted", ""], rows)


def ratio(verdict, name):
    """0.985 ± 0.006 (0.981-0.990): standard error, single rounds."""
    text = f"{verdict[name]:.3f}"
    error, rounds = verdict.get(name + "_error"), verdict.get(name + "_rounds")
    if error is not None:
        text += f" ± {error:.3f}"
    if rounds and rounds["min"] < rounds["max"]:
        text += f" ({rounds['min']:.3f}-{rounds['max']:.3f})"
    return text


def verdict_table(reports):
    """The adaptive policy against the best fixed length and off, a row for every load."""
    rows = [[f"{verdict[load_key(report)]:g}", verdict["best_fixed"], ratio(verdict, "adaptive_over_best_fixed"),
             ratio(verdict, "adaptive_over_off"), "yes" if verdict["some_fixed_wins"] else "no", f"{verdict['margin']:g}",
             "met" if verdict["pass"] else "**missed**"] for report in reports for verdict in report["verdicts"]]
    return table([load_name(reports[0]), "best fixed", "adaptive / best fixed", "adaptive / off", "some fixed length beats off",
                  "asked", ""], rows)


def simulation_table(report):
    """Rows: loads; columns: policies with total tokens/s and tokens/s of one user."""
    policies = report["policies"]
    cells = {(cell["concurrency"], cell["policy"]): cell for cell in report["cells"]}
    rows = []
    for verdict in report["verdicts"]:
        load = verdict["concurrency"]
        rows.append([f"{load:g}", *(f"{cells[load, p]['tokens_per_s']:.0f}, {cells[load, p]['user_tokens_per_s']:.1f}" for p in policies),
                     f"{verdict['adaptive_over_best_fixed']:.3f} ({verdict['best_fixed']})", f"{verdict['adaptive_over_off']:.3f}"])
    return table(["clients", *policies, "adaptive / best fixed", "adaptive / off"], rows)


def steps_until(steps):
    return "never" if steps < 0 else f"{steps:g}"


def phase_table(report):
    """Every policy in every phase: medians over rounds, the longest wait of any."""
    rows = []
    for burst in report["bursts"]:
        for i, clients in enumerate(report["burst"]):
            phases = [phases[i] for phases in burst["rounds"]]
            follow = sorted(phase["steps_to_follow"] if phase["steps_to_follow"] >= 0 else float("inf") for phase in phases)
            rows.append([burst["policy"], str(clients), f"{statistics.median(phase['tokens_per_s'] for phase in phases):.1f}",
                         f"{statistics.median(phase['verified_per_sequence'] for phase in phases):.2f}",
                         "never" if follow[len(follow) // 2] == float("inf") else f"{statistics.median(follow):g}",
                         f"{max(phase['longest_wait_s'] for phase in phases) * 1e3:.0f}", str(burst["passed_over"])])
    return table(["policy", "clients", "total tok/s", "verified/seq", "steps until the budget followed", "longest wait for a token, ms",
                  "passed over"], rows)


def phase_verdict_table(report):
    rows = [[str(i + 1), str(verdict["clients"]), verdict["best_fixed"], ratio(verdict, "adaptive_over_best_fixed"),
             ratio(verdict, "adaptive_over_off"), steps_until(verdict["steps_to_follow"]), f"{verdict['longest_wait_s'] * 1e3:.0f}"]
            for i, verdict in enumerate(report["phase_verdicts"])]
    return table(["phase", "clients", "best fixed", "adaptive / best fixed", "adaptive / off", "steps until the budget followed",
                  "longest wait, ms"], rows)


def texts_line(reports):
    """What was compared in all reports together."""
    texts = [report["texts"] for report in reports]
    reference = " and ".join(dict.fromkeys(one["reference"] for one in texts))
    return (f"{sum(one['compared'] for one in texts)} answers ({sum(one['compared_tokens'] for one in texts)} tokens) compared with "
            f"{reference}: {sum(one['different'] for one in texts)} differ.")
