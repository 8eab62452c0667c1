"""What HTTP costs: the same prompts through `dspark bench load` and through `dspark serve`, in turns.

The ratio of their speeds carries the noise of two runs. Two figures of one run do not: the share of the time that
the engine spends outside the model's passes (waiting, handing over texts), here and there, and the processor time of
the threads that speak HTTP. Their sum, less what the engine without HTTP spends outside, is what HTTP costs.
"""

import asyncio
import json
import statistics
import subprocess
import time
from pathlib import Path

import serve_client
import serve_prompts
import serve_servers

POLICIES = ("off", "adaptive")
WARMUP_TOKENS = 32


def n_requests(n_clients, args):
    """Measured requests of a run; as many as `dspark bench load` takes by itself."""
    return args.requests or max(12, 3 * n_clients)


def in_process(policy, n_clients, args, prompts, out):
    """(total tokens/s, share of the time outside passes) of `dspark bench load`; see src/load/load_run.h."""
    file, report = out / "overhead.jsonl", out / "overhead-engine.json"
    file.write_text("".join(json.dumps({"task": "load", "id": i, "prompt": prompt}) + "\n"
                            for i, prompt in enumerate(prompts)), encoding="utf-8")
    command = [args.dspark, "bench", "load", "-m", args.model, "-d", args.drafter, "-t", args.threads, "--concurrency",
               n_clients, "--policies", policy, "-r", 1, "-n", args.new_tokens, "--ignore-eos", "--temp", args.temperature,
               "--requests", n_requests(n_clients, args), "--warmup", WARMUP_TOKENS, "--max-sequences", args.slots,
               "--seconds", 3600, "--json", report, file]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise serve_client.Failure(f"dspark bench load: {done.stderr.strip()}")
    measured = json.loads(report.read_text())["cells"][0]["rounds"][0]
    return measured["tokens_per_s"], (measured["loop_s"] + measured["outside_s"]) / measured["seconds"]


def http_seconds(pid):
    """Processor time of a server's threads that speak HTTP."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "dspark-http":
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class ClosedLoop:
    """The closed loop of `dspark bench load`, over HTTP: a first wave of answers of different lengths, then the
    measured ones, and further ones until the last of those is answered."""

    def __init__(self, launched, n_clients, args, prompts):
        self.server, self.pid = launched.server, launched.process.pid
        self.n_clients, self.args, self.prompts = n_clients, args, prompts
        self.next, self.ended, self.begun, self.firsts = 0, 0, None, 0
        self.done = asyncio.Event()

    def counters(self):
        """Time with requests, tokens, seconds in passes, processor seconds of the threads that speak HTTP."""
        text = serve_client.call(self.server, "/metrics")
        passes = sum(serve_client.metric_in(text, "dspark_step_seconds_total", f'part="{part}"')
                     for part in ("draft", "forward", "commit"))
        idle = serve_client.metric_in(text, "dspark_idle_seconds_total")  # clients are slow to ask again
        return time.perf_counter() - idle, serve_client.metric_in(text, "vllm:generation_tokens_total"), passes, http_seconds(self.pid)

    def saw_first(self):
        self.firsts += 1

    async def ask(self, index, tokens, on_first=None):
        body = {**serve_client.question(self.prompts[index % len(self.prompts)], self.args, self.server), "max_tokens": tokens}
        await serve_client.stream_one(self.server, body, on_first)

    async def client(self, number):
        most = self.args.new_tokens
        await self.ask(len(self.prompts) - 1 - number, min(most, WARMUP_TOKENS + most * number // self.n_clients), self.saw_first)
        # The first that is done waits until all prompts of the first wave are read.
        while self.firsts < self.n_clients:
            await asyncio.sleep(0.001)
        if self.begun is None:
            self.begun = self.counters()
        wanted = n_requests(self.n_clients, self.args)
        while not self.done.is_set():
            index, self.next = self.next, self.next + 1
            await self.ask(index, most)
            self.ended += index < wanted
            if self.ended >= wanted:
                self.done.set()

    async def run(self):
        """Total tokens/s in the window, and the shares of it outside passes and in the threads that speak HTTP, the
        latter of all processors that the engine uses."""
        clients = [asyncio.create_task(self.client(i)) for i in range(self.n_clients)]
        finished = asyncio.create_task(self.done.wait())
        try:
            while not finished.done():
                ended, _ = await asyncio.wait([finished, *clients], return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            end = self.counters()
        finally:
            for task in (finished, *clients):
                task.cancel()
            await asyncio.gather(finished, *clients, return_exceptions=True)
        seconds, tokens, passes, http = (after - before for before, after in zip(self.begun, end))
        return tokens / seconds, 1 - passes / seconds, http / seconds / self.args.threads


def settle(server):
    """Waits until nothing of the run before is left."""
    while serve_client.metric(server, "vllm:num_requests_running") > 0:
        time.sleep(0.02)


def measure(args, out):
    """A row for every policy and number of clients."""
    wanted = [serve_servers.ours(args, f"dspark-{policy}", policy) for policy in POLICIES]
    with serve_servers.Fleet(wanted, out) as fleet:
        servers = dict(zip(POLICIES, fleet))
        rows = [{"policy": policy, "clients": n, "engine": [], "http": []} for policy in POLICIES for n in args.clients]
        most = max(args.clients)
        prompts = serve_prompts.make_prompts(args, servers["off"].server, n_requests(most, args) + most)
        for turn in range(args.rounds):
            for row in rows if turn % 2 == 0 else rows[::-1]:
                launched = servers[row["policy"]]

                def over_http(row=row, launched=launched):
                    row["http"].append(asyncio.run(ClosedLoop(launched, row["clients"], args, prompts).run()))
                    settle(launched.server)

                def engine(row=row):
                    row["engine"].append(in_process(row["policy"], row["clients"], args, prompts, out))

                for part in (engine, over_http) if turn % 2 == 0 else (over_http, engine):
                    part()
    for row in rows:
        row["http_over_engine"] = statistics.median(http[0] / engine[0] for http, engine in zip(row["http"], row["engine"]))
        row["engine_outside"] = statistics.median(engine[1] for engine in row["engine"])
        row["http_outside"] = statistics.median(http[1] for http in row["http"])
        row["http_processor"] = statistics.median(http[2] for http in row["http"])
        row["cost"] = row["http_outside"] - row["engine_outside"] + row["http_processor"]
    return rows


def markdown(rows):
    lines = ["| policy | clients | engine tok/s | HTTP tok/s | HTTP / engine | outside passes: engine | HTTP | threads of HTTP | cost |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['policy']} | {row['clients']} | {statistics.median(one[0] for one in row['engine']):.1f} | "
                     f"{statistics.median(one[0] for one in row['http']):.1f} | {row['http_over_engine']:.3f} | "
                     f"{row['engine_outside']:.2%} | {row['http_outside']:.2%} | {row['http_processor']:.2%} | {row['cost']:.2%} |")
    return "\n".join(lines) + "\n"
