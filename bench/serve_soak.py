#!/usr/bin/env python3
"""Many connections for a long time: memory, cache pages and texts of `dspark serve` under clients that hang up.

    bench/serve_soak.py                          # 30 minutes on the default model with its drafter
    bench/serve_soak.py --seconds 60 --every 5   # the same, shorter

--idle connections stay open and say nothing (some of them are replaced all the time) while --streams clients
read answers; a part of the clients hang up in the middle. Every answer that was read to its end must have the
text that the server gave when it was alone. Prints a table over time and a verdict, writes both to --out; the
exit status is 1 when the verdict is "failed". Standard library only; Linux.
"""

import argparse
import asyncio
import json
import random
import resource
import signal
import statistics
import sys
import time
import urllib.parse
from pathlib import Path

import gguf_sizes
import serve_client
import serve_load
import serve_servers

PAGE_TOKENS = 32  # kKvPageSize
QUESTIONS = ("Why is the sky blue?", "What is a river?", "Count to twenty.", "Write a poem about the sea.",
             "How do birds find their way?", "Name three fruits and their colours.", "What is 17 times 3?",
             "Tell me of a city on a hill.", "Write a function that adds two numbers.", "Who was Newton?",
             "Explain what a bridge is for.", "What should I cook tonight?")
HEAD = f"{'s':>7} {'rss MB':>8} {'cache MB':>9} {'beyond MB':>10} {'pages used':>11} {'running':>8} {'waiting':>8} {'conns':>6} {'answers':>8} {'hung up':>8}"


def resident_mb(pid):
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def page_mb(model):
    """Megabytes of one cache page, bf16; every layer keeps all positions."""
    metadata, _ = gguf_sizes.read_header(model)
    metadata = {key: value for key, value in metadata.items() if not key.endswith("sliding_window")}
    return gguf_sizes.cache_bytes(metadata, PAGE_TOKENS) / 2**20


class Soak:
    def __init__(self, args, launched):
        self.args, self.server, self.pid = args, launched.server, launched.process.pid
        self.page_mb = page_mb(args.model)
        self.start_mb = resident_mb(self.pid)
        self.texts, self.wrong, self.failures = {}, [], []
        self.answers = self.hung_up = self.touched = 0
        self.samples, self.idle = [], []
        self.stop_at = 0.0

    def question(self, text):
        return {"model": self.server["model"], "messages": [{"role": "user", "content": text}], "temperature": 0,
                "max_tokens": self.args.new_tokens, "ignore_eos": True}

    def learn_texts(self):
        for text in QUESTIONS:
            answer = serve_client.call(self.server, "/v1/chat/completions", self.question(text))
            self.texts[text] = answer["choices"][0]["message"]["content"]

    async def open_idle(self):
        """A connection that has had one answer and stays."""
        url = urllib.parse.urlsplit(self.server["url"])
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(f"GET /health/live HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        status, headers = await serve_client.read_head(reader)
        await reader.readexactly(int(headers.get("content-length", 0)))
        if status != 200:
            raise serve_client.Failure(f"an idle connection was answered with {status}")
        return reader, writer

    async def stream_client(self, number):
        rng = random.Random(f"{self.args.seed} {number}")
        while time.monotonic() < self.stop_at:
            question = rng.choice(QUESTIONS)
            leave_after = rng.randrange(1, 40) if rng.random() < self.args.hang_up else 0
            text, chunks = [], 0
            try:
                stream = serve_client.stream_events(self.server, self.question(question))
                async for chunk in stream:
                    text += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
                    chunks += 1
                    if chunks == leave_after:
                        break
                await stream.aclose()
            except (serve_client.Failure, OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error)[:200])
                await asyncio.sleep(0.1)
                continue
            if leave_after and chunks == leave_after:
                self.hung_up += 1
                continue
            self.answers += 1
            if "".join(text) != self.texts[question]:
                self.wrong.append(question)

    async def churn(self):
        """Idle connections come and go."""
        rng = random.Random(self.args.seed)
        while time.monotonic() < self.stop_at:
            await asyncio.sleep(0.1)
            place = rng.randrange(len(self.idle)) if self.idle else None
            if place is not None:
                self.idle[place][1].close()
                self.idle[place] = await self.open_idle()

    def sample(self, begun):
        values = {name: serve_client.metric(self.server, metric) for name, metric in (
            ("usage", "vllm:kv_cache_usage_perc"), ("pages", "dspark_kv_cache_pages"), ("kept", "dspark_kv_cache_idle_pages"),
            ("running", "vllm:num_requests_running"), ("waiting", "vllm:num_requests_waiting"),
            ("connections", "dspark_http_connections"))}
        used = round(values["usage"] * values["pages"])
        self.touched = max(self.touched, used + values["kept"])
        rss = resident_mb(self.pid)
        cache = self.touched * self.page_mb
        row = {"s": time.monotonic() - begun, "rss_mb": rss, "cache_mb": cache, "beyond_mb": rss - self.start_mb - cache,
               "pages_used": used, "running": int(values["running"]), "waiting": int(values["waiting"]),
               "connections": int(values["connections"]), "answers": self.answers, "hung_up": self.hung_up}
        self.samples.append(row)
        print(f"{row['s']:7.0f} {rss:8.1f} {cache:9.1f} {row['beyond_mb']:10.1f} {used:11} {row['running']:8} {row['waiting']:8} "
              f"{row['connections']:6} {self.answers:8} {self.hung_up:8}", flush=True)

    async def run(self):
        self.idle = [await self.open_idle() for _ in range(self.args.idle)]
        begun = time.monotonic()
        self.stop_at = begun + self.args.seconds
        tasks = [asyncio.create_task(self.stream_client(i)) for i in range(self.args.streams)]
        tasks.append(asyncio.create_task(self.churn()))
        print(f"at the start: {self.start_mb:.1f} MB\n{HEAD}", flush=True)
        while (left := self.stop_at - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self.args.every))
            await asyncio.to_thread(self.sample, begun)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                self.failures.append(repr(result)[:200])
        for _, writer in self.idle:
            writer.close()

    def left_over(self):
        """What is still held when nobody asks any more; None when nothing is."""
        end = time.monotonic() + 60
        while True:
            active = sum(serve_client.metric(self.server, f"vllm:num_requests_{kind}") for kind in ("running", "waiting"))
            usage = serve_client.metric(self.server, "vllm:kv_cache_usage_perc")
            if active == usage == 0 and serve_client.call(self.server, "/slots") == []:
                return None
            if time.monotonic() > end:
                return f"{active:.0f} requests and {usage:.1%} of the pages are held after the end"
            time.sleep(0.1)

    def growth_mb(self):
        """Memory beyond the cache, from the second quarter of the time to the last."""
        beyond = [row["beyond_mb"] for row in self.samples]
        quarter = max(1, len(beyond) // 4)
        return statistics.median(beyond[-quarter:]) - statistics.median(beyond[quarter:2 * quarter] or beyond[:1])

    def faults(self):
        peak, grown = max(row["beyond_mb"] for row in self.samples), self.growth_mb()
        found = [f"{len(self.failures)} requests failed, first: {self.failures[0]}"] if self.failures else []
        found += [f"{len(self.wrong)} texts differ, first for: {self.wrong[0]}"] if self.wrong else []
        found += [self.left_over()]
        found += [f"{peak:.1f} MB beyond model and cache, limit {self.args.beyond_mb}"] if peak > self.args.beyond_mb else []
        found += [f"memory grew by {grown:.1f} MB, limit {self.args.growth_mb}"] if grown > self.args.growth_mb else []
        return [fault for fault in found if fault]

    def report(self):
        found = self.faults()
        return {"verdict": "failed" if found else "passed", "faults": found, "start_mb": self.start_mb,
                "peak_beyond_mb": max(row["beyond_mb"] for row in self.samples), "growth_mb": self.growth_mb(),
                "answers": self.answers, "hung_up": self.hung_up, "samples": self.samples}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--every", type=float, default=30, help="seconds between two lines")
    parser.add_argument("--idle", type=int, default=1000, help="connections that stay open and say nothing")
    parser.add_argument("--streams", type=int, default=64, help="clients that read answers, and slots of the server")
    parser.add_argument("--hang-up", type=float, default=0.5, help="share of answers that are left in the middle")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--beyond-mb", type=float, default=100, help="most memory beyond that at the start and the cache")
    parser.add_argument("--growth-mb", type=float, default=20, help="most growth from the second quarter to the last")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dspark", default=str(serve_load.ROOT / "build" / "release" / "dspark"))
    parser.add_argument("-m", "--model", default=str(serve_load.MODEL))
    parser.add_argument("-d", "--drafter", default=str(serve_load.DRAFTER))
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--ours-args", default="", help="further options of the server, one string")
    parser.add_argument("--out", default=str(serve_load.ROOT / "bench" / "out" / "soak"))
    args = parser.parse_args()
    args.slots = args.streams
    return args


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("serve_soak: stopped"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, args.idle + 4096)), hard))
    out = Path(args.out)
    command = serve_servers.ours(args, more=("--idle-timeout", int(args.seconds) + 3600))
    try:
        with serve_servers.Fleet([command], out) as fleet:
            soak = Soak(args, fleet[0])
            soak.learn_texts()
            asyncio.run(soak.run())
            report = soak.report()
    except (serve_client.Failure, OSError) as error:
        sys.exit(f"serve_soak: {error}")
    (out / "serve_soak.json").write_text(json.dumps({"machine": serve_load.machine(), "arguments": vars(args), **report},
                                                    indent=1) + "\n", encoding="utf-8")
    print(f"most beyond model and cache: {report['peak_beyond_mb']:.1f} MB; growth from the second quarter to the last: "
          f"{report['growth_mb']:.1f} MB; {report['answers']} answers read, {report['hung_up']} left")
    print("verdict: " + report["verdict"] + "".join(f"\n  {fault}" for fault in report["faults"]))
    sys.exit(report["verdict"] != "passed")


if __name__ == "__main__":
    main()
