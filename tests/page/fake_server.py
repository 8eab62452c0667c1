"""Serves the page's own files and answers like the server, with whatever a test wants to see."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ports import reserve_port

PAGE = Path(__file__).resolve().parent.parent.parent / "src" / "server" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


# (text, origin, place in the block) of the usual answer and of the long one.
WORDS = [("The", "plain", -1), (" sky", "accepted", 0), (" is", "accepted", 1), (" <b>", "accepted", 4),
         (" bl\u00fce", "correction", -1), (".", "bonus", -1)]
# What comes in front of the usual answer as reasoning, and the tag that ends it.
THOUGHTS = [("Blue", "plain", -1), (" or", "accepted", 0), (" <i>", "accepted", 1), ("?", "correction", -1)]
TAG = ("", "bonus", -1)
STORY = ("The lamp above Grey Point had burned every night for ninety years, and Ida, who kept it, had burned every "
         "dinner for nine. So on the first of March she wrote a list: onions, butter, a book that explains both. By "
         "April the soup could be eaten; by June the fishermen came for it.\n\n"
         "What she learned first is that heat is patience with a number on it.").split(" ")


def story_tokens():
    """Five accepted places of each block, then a correction or a bonus in turn."""
    for at, word in enumerate(STORY):
        place = at % 6
        origin = "plain" if at == 0 else "accepted" if place < 5 else "correction" if at % 12 == 5 else "bonus"
        yield ("" if at == 0 else " ") + word, origin, place if origin == "accepted" else -1


def chunk_of(reasoning, content, plain):
    """A chunk with these (text, origin, place)."""
    tokens = []
    for text, origin, place in (*reasoning, *content):
        token = {"text": text, "origin": "plain" if plain else origin, "draft_idx": -1 if plain else place}
        if token["origin"] == "accepted":
            token.update(confidence=0.75, draft_probability=0.5, target_probability=0.9)
        tokens.append(token)
    delta = {key: "".join(text for text, _, _ in part)
             for key, part in (("reasoning_content", reasoning), ("content", content)) if part}
    return {"choices": [{"index": 0, "delta": delta}], "dspark": {"tokens": tokens}}


class FakeServer:
    """One page's server. What it says follows its attributes, which tests change while it runs."""

    def __init__(self):
        self.drafter, self.drafter_error, self.accept = {"kind": "dspark"}, None, "coupled"
        self.mode = "answer"  # answer, story, slow, think (reasoning, then the answer), muse (reasoning only), cut, broken, refuse
        self.without = None  # the words of answers without speculation; None: the same words
        self.thoughts_without = None  # and of their reasoning
        self.key = None  # the API key that it wants
        self.metrics_status, self.metrics_text = 200, None
        self.budget, self.mean_budget = 11, 7
        self.plans = True
        self.requests = []
        self.hung_up = threading.Event()
        self.users = 0
        self.generated = 0
        self.planned = 0
        self.reserved, self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.open()

    def open(self):
        """Listens; after close() again at the same address."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send(self, status, body, kind="application/json"):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def refuses(self):
                """As the real server: everything but the page and the metrics needs the key."""
                if fake.key is None or self.headers.get("Authorization") == f"Bearer {fake.key}":
                    return False
                self.send(401, {"error": {"message": "want a valid API key in the header Authorization: Bearer KEY"}})
                return True

            def do_GET(self):
                path = self.path.split("?")[0]
                if path == "/" or path.startswith("/page/"):
                    file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
                    self.send(200, file.read_bytes(), TYPES[file.suffix])
                elif path == "/metrics":
                    self.send(fake.metrics_status, (fake.metrics_text or fake.metrics()).encode(), "text/plain")
                elif self.refuses():
                    return
                elif path == "/v1/models":
                    self.send(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})
                elif path == "/props":
                    self.send(200, {"drafter": fake.drafter, "drafter_error": fake.drafter_error, "policy": "adaptive",
                                    "accept": fake.accept})
                else:
                    self.send(404, {"error": {"message": "no such path"}})

            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.refuses():
                    return
                fake.users = body["users"]
                self.send(200, {"users": fake.users})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append(body)
                if self.refuses():
                    return
                if fake.mode == "refuse":
                    self.send(429, {"error": {"message": "the queue is full"}})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                if fake.mode == "broken":  # more is promised than comes
                    self.send_header("Content-Length", "1000000")
                self.end_headers()
                try:
                    fake.write_answer(self.wfile, body)
                except OSError:
                    fake.hung_up.set()

        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def write_answer(self, out, body):
        def send(event):
            out.write(b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n")
            out.flush()

        plain = body.get("speculation", {}).get("policy") == "off"
        words = list(story_tokens()) if self.mode == "story" else WORDS
        if plain and self.without is not None:
            words = [(text, "plain", -1) for text in self.without]
        pieces = self.pieces(words, plain)
        for _ in range(400 if self.mode == "slow" else 1):
            for reasoning, content in pieces:
                send(chunk_of(reasoning, content, plain))
                self.generated += 1
                if self.mode in ("slow", "story"):
                    time.sleep(0.05 if self.mode == "slow" else 0.005)
            if self.mode in ("cut", "broken"):
                return
        n_tokens = sum(len(reasoning) + len(content) for reasoning, content in pieces)
        send({"choices": [], "usage": {"completion_tokens": n_tokens, "speculation": self.report(words, plain)}})
        send(b"[DONE]")

    def pieces(self, words, plain):
        """[(words of reasoning, words of content)], one for each chunk."""
        if self.mode not in ("think", "muse"):
            return [((), (word,)) for word in words]
        thoughts = THOUGHTS
        if plain and self.thoughts_without is not None:
            thoughts = [(text, "plain", -1) for text in self.thoughts_without]
        if self.mode == "muse":
            return [((thought,), ()) for thought in thoughts]
        # The end of the reasoning, its tag and the first word come together, as they do from steps that accept drafts.
        return [*(((thought,), ()) for thought in thoughts[:-1]), ((thoughts[-1], TAG), (words[0],)),
                *(((), (word,)) for word in words[1:])]

    def report(self, words, plain):
        if plain:
            return {"drafted": 0, "verified": 0, "trimmed": 0, "accepted": 0, "rounds": 0}
        if words is WORDS:
            return {"drafted": 14, "verified": 6, "trimmed": 8, "accepted": 3, "rounds": 2}
        origins = [origin for _, origin, _ in words]
        accepted, wrong = origins.count("accepted"), origins.count("correction")
        rounds = wrong + origins.count("bonus")
        return {"drafted": 7 * rounds, "verified": accepted + wrong, "trimmed": 7 * rounds - accepted - wrong,
                "accepted": accepted, "rounds": rounds}

    def metrics(self):
        self.generated += 10
        self.planned += 5
        lines = [f'vllm:generation_tokens_total{{model_name="tiny",engine="0"}} {self.generated}',
                 'vllm:num_requests_running{model_name="tiny",engine="0"} 2',
                 'vllm:num_requests_waiting{model_name="tiny",engine="0"} 1',
                 f'dspark_spec_decode_num_rounds_total{{model_name="tiny"}} {self.generated}',
                 f'dspark_spec_decode_num_verified_tokens_total{{model_name="tiny"}} {self.generated * 3}',
                 'dspark_step_measured_seconds{model_name="tiny"} 0.005',
                 'dspark_step_predicted_seconds{model_name="tiny"} 0.004']
        if self.plans:
            lines += [f'dspark_planned_steps_total{{model_name="tiny"}} {self.planned}',
                      f'dspark_paused_steps_total{{model_name="tiny"}} {self.planned * 2 / 5}',
                      f'dspark_verify_budget{{model_name="tiny"}} {self.budget}',
                      f'dspark_verify_budget_total{{model_name="tiny"}} {self.planned * self.mean_budget}',
                      'dspark_draft_length{model_name="tiny"} 4', 'dspark_cost_correction{model_name="tiny"} 1.25']
        for at, n in ((2, 40), (10, 10), (18, 160)):
            label = f'{{model_name="tiny",bin="{at}"}}'
            lines += [f'dspark_calibration_bin_drafts{label} {n}',
                      f'dspark_calibration_bin_predicted_survival{label} {(at + 0.5) / 20}',
                      f'dspark_calibration_bin_observed_survival{label} {(at + 0.3) / 20}']
        for place in range(3):
            label = f'model_name="tiny",position="{place}"'
            lines += [f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",{label}}} {30 - 10 * place}',
                      f'dspark_spec_decode_num_verified_tokens_per_pos_total{{{label}}} 40']
        for rows in (1, 4, 8):
            lines.append(f'dspark_cost_verify_seconds{{model_name="tiny",rows="{rows}"}} {0.002 + 0.0003 * rows}')
        return "\n".join(lines) + "\n"
