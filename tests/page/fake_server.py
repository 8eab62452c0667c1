"""Serves the page's own files and answers like the server, with whatever a test wants to see."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "src" / "server" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


class FakeServer:
    def __init__(self):
        self.drafter, self.drafter_error = {"kind": "dspark"}, None
        self.mode = "answer"  # answer, slow, cut, refuse
        self.requests = []
        self.hung_up = threading.Event()
        self.users = 0
        self.generated = 0
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

            def do_GET(self):
                path = self.path.split("?")[0]
                if path == "/" or path.startswith("/page/"):
                    file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
                    self.send(200, file.read_bytes(), TYPES[file.suffix])
                elif path == "/v1/models":
                    self.send(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})
                elif path == "/props":
                    self.send(200, {"drafter": fake.drafter, "drafter_error": fake.drafter_error, "policy": "adaptive"})
                elif path == "/metrics":
                    self.send(200, fake.metrics().encode(), "text/plain")
                else:
                    self.send(404, {"error": {"message": "no such path"}})

            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.users = body["users"]
                self.send(200, {"users": fake.users})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append(body)
                if fake.mode == "refuse":
                    self.send(429, {"error": {"message": "the queue is full"}})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    fake.write_answer(self.wfile, body)
                except OSError:
                    fake.hung_up.set()

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def write_answer(self, out, body):
        def send(event):
            out.write(b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n")
            out.flush()

        plain = body.get("speculation", {}).get("policy") == "off"
        words = [("The", "plain", -1), (" sky", "accepted", 0), (" is", "accepted", 1), (" <b>", "accepted", 4),
                 (" bl\u00fce", "correction", -1), (".", "bonus", -1)]
        for repeat in range(400 if self.mode == "slow" else 1):
            for text, origin, place in words:
                token = {"text": text, "origin": "plain" if plain else origin, "draft_idx": -1 if plain else place}
                if token["origin"] == "accepted":
                    token.update(confidence=0.75, draft_probability=0.5, target_probability=0.9)
                send({"choices": [{"index": 0, "delta": {"content": text}}], "dspark": {"tokens": [token]}})
                self.generated += 1
                if self.mode == "slow":
                    time.sleep(0.05)
            if self.mode == "cut":
                return
        speculation = {"drafted": 0, "verified": 0, "trimmed": 0, "accepted": 0, "rounds": 0} if plain else {
            "drafted": 14, "verified": 6, "trimmed": 8, "accepted": 3, "rounds": 2}
        send({"choices": [], "usage": {"completion_tokens": len(words), "speculation": speculation}})
        send(b"[DONE]")

    def metrics(self):
        self.generated += 10
        lines = [f'vllm:generation_tokens_total{{model_name="tiny"}} {self.generated}',
                 'vllm:num_requests_running{model_name="tiny"} 2', 'vllm:num_requests_waiting{model_name="tiny"} 1',
                 f'vllm:spec_decode_num_drafts_total{{model_name="tiny"}} {self.generated}',
                 f'dspark_spec_decode_num_verified_tokens_total{{model_name="tiny"}} {self.generated * 3}',
                 'dspark_step_measured_seconds{model_name="tiny"} 0.005',
                 'dspark_step_predicted_seconds{model_name="tiny"} 0.004']
        for at, n in ((2, 40), (10, 10), (18, 160)):
            label = f'{{model_name="tiny",bin="{at}"}}'
            lines += [f'dspark_calibration_bin_drafts{label} {n}',
                      f'dspark_calibration_bin_predicted_survival{label} {(at + 0.5) / 20}',
                      f'dspark_calibration_bin_observed_survival{label} {(at + 0.3) / 20}']
        for place in range(3):
            label = f'{{model_name="tiny",position="{place}"}}'
            lines += [f'vllm:spec_decode_num_accepted_tokens_per_pos_total{label} {30 - 10 * place}',
                      f'dspark_spec_decode_num_verified_tokens_per_pos_total{label} 40']
        for rows in (1, 4, 8):
            lines.append(f'dspark_cost_verify_seconds{{model_name="tiny",rows="{rows}"}} {0.002 + 0.0003 * rows}')
        return "\n".join(lines) + "\n"
