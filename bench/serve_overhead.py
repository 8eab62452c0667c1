"""What HTTP costs: the same prompts through `dspark bench load` and through `dspark serve`, in turns."""

import asyncio
import json
import statistics
import subprocess
import time

import serve_client
import serve_prompts
import serve_servers

POLICIES = ("off", "adaptive")
WARMUP_TOKENS = 32


def n_requests(n_clients, args):
    """Measured requests of a run; as many as `dspark bench load` takes by itself."""
    return args.requests or max(12, 3 * n_clients)


def in_process(policy, n_clients, args, prompts, out):
    """Total tokens/s of `dspark bench load`, which also says how it measures (src/load/load_run.h)."""
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
    return json.loads(report.read_text())["cells"][0]["rounds"][0]["tokens_per_s"]


class ClosedLoop:
    """The closed loop of `dspark bench load`, over HTTP: a first wave of answers of different lengths, then the
    measured ones, and further ones until the last of those is answered."""

    def __init__(self, server, n_clients, args, prompts):
        self.server, self.n_clients, self.args, self.prompts = server, n_clients, args, prompts
        self.next, self.ended, self.begun, self.firsts = 0, 0, None, 0
        self.done = asyncio.Event()

    def tokens(self):
        return time.perf_counter(), serve_client.metric(self.server, "vllm:generation_tokens_total")

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
            self.begun = self.tokens()
        wanted = n_requests(self.n_clients, self.args)
        while not self.done.is_set():
            index, self.next = self.next, self.next + 1
            await self.ask(index, most)
            self.ended += index < wanted
            if self.ended >= wanted:
                self.done.set()

    async def rate(self):
        """Total tokens/s in the window."""
        clients = [asyncio.create_task(self.client(i)) for i in range(self.n_clients)]
        finished = asyncio.create_task(self.done.wait())
        try:
            while not finished.done():
                ended, _ = await asyncio.wait([finished, *clients], return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            end = self.tokens()
        finally:
            for task in (finished, *clients):
                task.cancel()
            await asyncio.gather(finished, *clients, return_exceptions=True)
        return (end[1] - self.begun[1]) / (end[0] - self.begun[0])


def settle(server):
    """Waits until nothing of the run before is left."""
    while serve_client.metric(server, "vllm:num_requests_running") > 0:
        time.sleep(0.02)


def measure(args, out):
    """A row for every policy and number of clients."""
    wanted = [serve_servers.ours(args, f"dspark-{policy}", policy) for policy in POLICIES]
    with serve_servers.Fleet(wanted, out) as fleet:
        servers = {policy: one.server for policy, one in zip(POLICIES, fleet)}
        rows = [{"policy": policy, "clients": n, "engine": [], "http": []} for policy in POLICIES for n in args.clients]
        most = max(args.clients)
        prompts = serve_prompts.make_prompts(args, servers["off"], n_requests(most, args) + most)
        for turn in range(args.rounds):
            for row in rows if turn % 2 == 0 else rows[::-1]:
                server = servers[row["policy"]]

                def over_http(row=row, server=server):
                    row["http"].append(asyncio.run(ClosedLoop(server, row["clients"], args, prompts).rate()))
                    settle(server)

                def engine(row=row):
                    row["engine"].append(in_process(row["policy"], row["clients"], args, prompts, out))

                for part in (engine, over_http) if turn % 2 == 0 else (over_http, engine):
                    part()
    for row in rows:
        ratios = [http / engine for http, engine in zip(row["http"], row["engine"])]
        row["http_over_engine"] = statistics.median(ratios)
    return rows


def markdown(rows):
    lines = ["| policy | clients | engine tok/s | HTTP tok/s | HTTP / engine |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['policy']} | {row['clients']} | {statistics.median(row['engine']):.1f} | "
                     f"{statistics.median(row['http']):.1f} | {row['http_over_engine']:.3f} |")
    return "\n".join(lines) + "\n"
