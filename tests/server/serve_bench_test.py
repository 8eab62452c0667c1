#!/usr/bin/env python3
"""bench/serve_load.py and bench/serve_soak.py on a tiny model: what they start, write and say; no times are judged."""

import json
import socket
import subprocess
import sys

import serve_harness
from harness import BINARY, ROOT, Tool

LOAD = ROOT / "bench" / "serve_load.py"
SOAK = ROOT / "bench" / "serve_soak.py"
QUICK = ("--clients", "1,2", "--rounds", "2", "--prompt-tokens", "96", "--new-tokens", "12", "-t", "1")
# Stands for the peers' servers: takes their options, answers as ours does.
PEER = """#!/usr/bin/env python3
import os, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options["-np"] == "2" and options["-c"] == str(2 * 300) and options["-t"] == options["-tb"] == "1", options
os.execv({binary!r}, [{binary!r}, "serve", "-m", options["-m"], "-n", "2", "-c", "300", "-t", "1", "--port", options["--port"]])
"""


class ServeLoad(Tool):
    def bench(self, script, *arguments, status=0):
        result = subprocess.run([sys.executable, str(script), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result

    def launch(self, *arguments, status=0):
        out = self.path / "out"
        result = self.bench(LOAD, "--launch", "--dspark", BINARY, "-m", self.chat_model, "-d", "ngram", "--context", "300",
                            "--out", out, *QUICK, *arguments, status=status)
        return out, result

    def check_gone(self, result):
        """The servers that were started do not answer any more."""
        for word in result.stderr.split():
            if word.isdigit() and int(word) > 10000:
                with socket.socket() as probe:
                    self.assertNotEqual(probe.connect_ex(("127.0.0.1", int(word))), 0, word)

    def prompts(self):
        path = self.path / "prompts.jsonl"
        path.write_text("".join(json.dumps({"task": "t", "id": i, "prompt": f"Question {i}: how far is it?"}) + "\n"
                                for i in range(40)))
        return path

    def test_launch_with_peers(self):
        peer = self.path / "llama-server"
        peer.write_text(PEER.format(binary=BINARY))
        peer.chmod(0o755)
        out, result = self.launch("--llama-server", peer, "--ik-server", peer, "--prompt-file", self.prompts())
        report = json.loads((out / "serve_load.json").read_text())
        names = ("dspark", "llama.cpp", "ik_llama.cpp")
        self.assertEqual([(row["clients"], row["server"]) for row in report["results"]],
                         [(n, name) for n in (1, 2) for name in names])
        for row in report["results"]:
            self.assertEqual(row["answers"], 2 * row["clients"])
            self.assertEqual(row["new_tokens"], 12)
            # Cut by the server's tokenizer, template included.
            self.assertEqual((row["prompt_tokens"]["min"], row["prompt_tokens"]["max"]), (96, 96))
            self.assertGreater(row["total_tokens_per_s"], 0)
            self.assertLessEqual(row["ttft_p50_s"], row["ttft_p95_s"])
            self.assertLessEqual(row["speculation"]["accepted"], row["speculation"]["verified"])
        table = (out / "serve_load.md").read_text()
        self.assertIn("| llama.cpp | 2 |", table)
        self.assertIn("total over the best other", table)
        self.assertIn(table.split("\n\n")[1], result.stdout)
        self.check_gone(result)

    def test_a_server_that_does_not_start(self):
        _, result = self.launch("--ik-server", "/bin/false", status=1)
        self.assertIn("ik_llama.cpp did not start", result.stderr)
        self.check_gone(result)

    def test_running_servers_and_text_files(self):
        server = serve_harness.Server("-m", self.chat_model, "-q")
        self.addCleanup(server.stop)
        text = self.path / "text.txt"
        text.write_text("\n\n".join(f"Paragraph {i} has a few words, and then it ends without saying much." for i in range(9)))
        numbers = self.path / "numbers.json"
        self.bench(LOAD, f"here=http://127.0.0.1:{server.port}", "--json", numbers, "--prompt-file", text, *QUICK)
        rows = json.loads(numbers.read_text())["results"]
        self.assertEqual([row["prompt_tokens"]["max"] for row in rows], [96, 96])
        self.bench(LOAD, *QUICK, status=2)

    def test_overhead(self):
        out = self.path / "overhead"
        result = self.bench(LOAD, "--overhead", "--dspark", BINARY, "-m", self.chat_model, "-d", "ngram", "--context", "300",
                            "--out", out, *QUICK, "--requests", "4", "--prompt-file", self.prompts())
        rows = json.loads((out / "serve_overhead.json").read_text())["results"]
        self.assertEqual([(row["policy"], row["clients"]) for row in rows],
                         [("off", 1), ("off", 2), ("adaptive", 1), ("adaptive", 2)])
        for row in rows:
            self.assertEqual((len(row["engine"]), len(row["http"])), (2, 2))
            # So few tokens take less time than asking for the metrics does: the window may even come out negative.
            self.assertIsInstance(row["http_over_engine"], float)
        self.assertIn("| adaptive | 2 |", (out / "serve_overhead.md").read_text())
        self.check_gone(result)

    def test_soak(self):
        out = self.path / "soak"
        result = self.bench(SOAK, "--dspark", BINARY, "-m", self.chat_model, "-d", "ngram", "--seconds", "4", "--every", "1",
                            "--idle", "50", "--streams", "8", "--context", "300", "--new-tokens", "100", "--out", out)
        report = json.loads((out / "serve_soak.json").read_text())
        self.assertEqual(report["verdict"], "passed", result.stdout)
        self.assertGreaterEqual(len(report["samples"]), 3)
        self.assertGreater(report["answers"], 0)
        self.assertGreater(report["hung_up"], 0)
        self.assertIn("verdict: passed", result.stdout)
        # A limit that cannot be kept is reported.
        worse = self.bench(SOAK, "--dspark", BINARY, "-m", self.chat_model, "-d", "ngram", "--seconds", "2", "--every", "1",
                           "--idle", "5", "--streams", "2", "--context", "300", "--growth-mb", "-100", "--out", out, status=1)
        self.assertIn("verdict: failed", worse.stdout)


if __name__ == "__main__":
    serve_harness.main()
