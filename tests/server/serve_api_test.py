#!/usr/bin/env python3
"""`dspark serve`: every endpoint, streaming, and errors, on a tiny model."""

import concurrent.futures
import json
import re

import serve_harness
from serve_harness import ROOT, ServeCase, chat, chat_text, events


class Chat(ServeCase):
    def test_answer(self):
        answer = self.server.post("/v1/chat/completions", chat("hello there", max_tokens=24, ignore_eos=True))
        self.assertEqual(answer.status, 200, answer.body)
        body = answer.json
        self.assertEqual(body["object"], "chat.completion")
        self.assertTrue(body["id"].startswith("chatcmpl-"))
        self.assertEqual(body["choices"][0]["finish_reason"], "length")
        self.assertEqual(body["choices"][0]["message"]["role"], "assistant")
        self.assertEqual(body["usage"]["completion_tokens"], 24)
        self.assertEqual(body["usage"]["total_tokens"], 24 + body["usage"]["prompt_tokens"])
        text = self.run_text("hello there", "-n", "24", "--temp", "0", "--ignore-eos")
        self.assertEqual(body["choices"][0]["message"]["content"], text)
        self.assertIn("x-request-id", answer.headers)

    def test_stream_equals_whole(self):
        body = chat("abcabcabc", max_tokens=40, ignore_eos=True, seed=5, temperature=1.1)
        whole = self.server.post("/v1/chat/completions", body).json
        connection, response = self.server.open_stream("/v1/chat/completions",
                                                       {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(response.status, 200)
        self.assertTrue(response.getheader("Content-Type").startswith("text/event-stream"))
        chunks = events(response)
        connection.close()
        self.assertEqual(chunks[-1], "[DONE]")
        self.assertEqual(chunks[-2]["choices"], [])
        self.assertEqual(chunks[-2]["usage"]["completion_tokens"], 40)
        self.assertTrue(all("usage" in chunk and chunk["usage"] is None for chunk in chunks[:-2]))
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        self.assertTrue(all("usage" not in chunk for chunk in events(response)))
        connection.close()
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual(chunks[-3]["choices"][0]["finish_reason"], "length")
        self.assertEqual(chat_text(chunks), whole["choices"][0]["message"]["content"])

    def test_speculation_report_and_overrides(self):
        body = chat("abcabcabcabc", max_tokens=64, ignore_eos=True)
        drafted = self.server.post("/v1/chat/completions", body).json
        report = drafted["usage"]["speculation"]
        self.assertGreater(report["rounds"], 0)
        self.assertGreaterEqual(report["drafted"], report["verified"])
        self.assertEqual(report["drafted"] - report["verified"], report["trimmed"])
        self.assertGreater(report["accepted"], 0)
        plain = self.server.post("/v1/chat/completions", {**body, "speculation": {"policy": "off"}}).json
        self.assertEqual(plain["usage"]["speculation"]["drafted"], 0)
        self.assertEqual(plain["choices"][0]["message"], drafted["choices"][0]["message"])
        for policy in ("adaptive", "causal"):  # they weigh costs, which the server's own policy does not need
            answer = self.server.post("/v1/chat/completions", {**body, "speculation": {"policy": policy}})
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.json["choices"][0]["message"], plain["choices"][0]["message"])
        for field, value in (("policy", "sometimes"), ("accept", "maybe"), ("max_draft", -1)):
            answer = self.server.post("/v1/chat/completions", {**body, "speculation": {field: value}})
            self.error(answer, 400, "speculation." + field)

    def test_drafts_as_asked(self):
        body = chat("abcabcabcabc", max_tokens=96, ignore_eos=True)
        whole = self.server.post("/v1/chat/completions", body).json

        def report(fields, **more):
            answer = self.server.post("/v1/chat/completions", {**body, "speculation": fields, **more}).json
            told = answer["usage"]["speculation"]
            self.assertEqual(told["drafted"], told["verified"] + told["trimmed"])
            self.assertLessEqual(told["accepted"], told["verified"])
            return told, answer["choices"][0]["message"]["content"]

        free = whole["usage"]["speculation"]
        self.assertGreater(free["drafted"], 2 * free["rounds"])  # else the limits below would show nothing
        for most in (0, 1, 2):
            told, text = report({"max_draft": most})
            self.assertLessEqual(told["drafted"], most * told["rounds"])
            self.assertEqual(told["drafted"] > 0, most > 0)
            self.assertEqual(text, whole["choices"][0]["message"]["content"])
        told, _ = report({"policy": "fixed:1"})
        self.assertLessEqual(told["drafted"], told["rounds"])
        # Sampled: the coupled rule keeps the text, the other rules its distribution only, so some text differs.
        differ = 0
        for seed in range(4):
            sampled = {"temperature": 1, "seed": seed}
            plain = report({"policy": "off"}, **sampled)[1]
            coupled, text = report({"accept": "coupled"}, **sampled)
            self.assertEqual(text, plain)
            self.assertGreater(coupled["drafted"], 0)
            rejection, text = report({"accept": "rejection"}, **sampled)
            self.assertGreater(rejection["drafted"], 0)
            differ += text != plain
        self.assertGreater(differ, 0)

    def test_n_and_seed(self):
        body = chat("hello", max_tokens=12, ignore_eos=True, temperature=1.5, min_p=0, seed=9, n=3)
        first = self.server.post("/v1/chat/completions", body).json
        again = self.server.post("/v1/chat/completions", body).json
        texts = [choice["message"]["content"] for choice in first["choices"]]
        self.assertEqual([choice["index"] for choice in first["choices"]], [0, 1, 2])
        self.assertEqual(texts, [choice["message"]["content"] for choice in again["choices"]])
        self.assertGreater(len(set(texts)), 1)
        self.assertEqual(first["usage"]["completion_tokens"], 36)

    def test_streamed_choices_equal_whole_ones(self):
        body = chat("hello", max_tokens=20, ignore_eos=True, temperature=1.5, min_p=0, seed=9, n=3)
        whole = self.server.post("/v1/chat/completions", body).json
        connection, response = self.server.open_stream("/v1/chat/completions",
                                                       {**body, "stream_options": {"include_usage": True}})
        chunks = events(response)
        connection.close()
        self.assertEqual(chunks.pop(), "[DONE]")
        self.assertEqual(chunks.pop()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
        for wanted in whole["choices"]:
            parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == wanted["index"]]
            self.assertEqual("".join(part["delta"].get("content") or "" for part in parts), wanted["message"]["content"])
            self.assertEqual([part["delta"]["role"] for part in parts if "role" in part["delta"]], ["assistant"])
            self.assertEqual([part["finish_reason"] for part in parts if part["finish_reason"]], [wanted["finish_reason"]])
        self.assertEqual(len({choice["message"]["content"] for choice in whole["choices"]}), 3)

    def test_penalties(self):
        first, second = self.server.post("/tokenize", {"content": "qz"}).json["tokens"]
        # Far more likely than all others, and "q" more than "z" by more than the model's own logits differ.
        body = chat("hello", max_tokens=24, ignore_eos=True, logit_bias={str(first): 100, str(second): 80})

        def text(**fields):
            texts = [self.server.post("/v1/chat/completions", {**body, "speculation": {"policy": policy}, **fields})
                     .json["choices"][0]["message"]["content"] for policy in ("fixed:4", "off")]
            self.assertEqual(texts[0], texts[1])  # drafts change nothing
            return texts[0]

        self.assertEqual(text(), "q" * 24)
        self.assertEqual(text(frequency_penalty=0.1, presence_penalty=0.5, repetition_penalty=1.01), "q" * 24)
        # Each "q" costs two more, until "z" is ahead; then they take turns.
        grown = text(frequency_penalty=2)
        self.assertEqual(set(grown), {"q", "z"})
        self.assertTrue(grown.startswith("qqq"), grown)
        # Either is halved once it was said, and stays so.
        self.assertEqual(text(repetition_penalty=2), "qz" + "q" * 22)
        # Two once: enough between neighbours only.
        near = {**body, "logit_bias": {str(first): 100, str(second): 100}}
        plain, spread = (self.server.post("/v1/chat/completions", {**near, "presence_penalty": penalty}).json["choices"][0]
                         ["message"]["content"] for penalty in (0, 2))
        self.assertEqual(len(set(plain)), 1)
        self.assertEqual(set(spread), {"q", "z"})

    def test_stop_and_limits(self):
        long = self.server.post("/v1/chat/completions", chat("hello", max_tokens=30, ignore_eos=True)).json
        text = long["choices"][0]["message"]["content"]
        stop = text[10:12]
        cut = self.server.post("/v1/chat/completions",
                               chat("hello", max_completion_tokens=30, ignore_eos=True, stop=stop)).json
        self.assertEqual(cut["choices"][0]["finish_reason"], "stop")
        self.assertEqual(cut["choices"][0]["message"]["content"], text[:text.index(stop)])

    def test_logprobs(self):
        body = chat("hello", max_tokens=10, ignore_eos=True, logprobs=True, top_logprobs=3)
        drafted = self.server.post("/v1/chat/completions", body).json["choices"][0]
        plain = self.server.post("/v1/chat/completions", {**body, "speculation": {"policy": "off"}}).json["choices"][0]
        self.assertEqual(drafted["logprobs"], plain["logprobs"])
        content = drafted["logprobs"]["content"]
        self.assertEqual(len(content), 10)
        spelled = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
        self.assertEqual(spelled, drafted["message"]["content"])
        for entry in content:
            self.assertLessEqual(entry["logprob"], 0)
            self.assertEqual(len(entry["top_logprobs"]), 3)
            # Temperature 0 takes the likeliest.
            self.assertAlmostEqual(entry["top_logprobs"][0]["logprob"], entry["logprob"])

    def test_streamed_logprobs_equal_whole_ones(self):
        for path, body in (("/v1/chat/completions", chat("abcabc", max_tokens=24, ignore_eos=True, temperature=1.2, seed=3,
                                                         logprobs=True, top_logprobs=2)),
                           ("/v1/completions", {"prompt": "abcabc", "max_tokens": 24, "ignore_eos": True, "temperature": 1.2,
                                                "seed": 3, "logprobs": 2})):
            wanted = self.server.post(path, body).json["choices"][0]["logprobs"]
            self.assertTrue(all(len(entries) == 24 for entries in wanted.values()), wanted)
            for policy in ("fixed:4", "off"):
                connection, response = self.server.open_stream(path, {**body, "speculation": {"policy": policy}})
                chunks = events(response)
                connection.close()
                told = {key: [] for key in wanted}
                for chunk in chunks[:-1]:
                    for key, entries in chunk["choices"][0]["logprobs"].items():
                        told[key] += entries
                self.assertEqual(told, wanted, (path, policy))

    def test_logit_bias(self):
        token = self.server.post("/tokenize", {"content": "q"}).json["tokens"][0]
        body = chat("hello", max_tokens=6, ignore_eos=True, logit_bias={str(token): 100})
        self.assertEqual(self.server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"],
                         "qqqqqq")

    def test_trace(self):
        body = chat("abcabcabc", max_tokens=32, ignore_eos=True, dspark_trace=True)
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        chunks = events(response)
        connection.close()
        tokens = [token for chunk in chunks if chunk != "[DONE]" for token in chunk.get("dspark", {}).get("tokens", ())]
        self.assertEqual(len(tokens), 32)
        self.assertTrue(all(0 <= token["target_probability"] <= 1.0001 for token in tokens))
        for token in tokens:  # looked-up drafts have no probability
            self.assertNotIn("draft_probability", token)
        origins = {token["origin"] for token in tokens}
        self.assertIn("accepted", origins)
        self.assertLessEqual(origins, {"plain", "accepted", "correction", "bonus"})
        for token in tokens:
            self.assertEqual(token["origin"] == "accepted", token["draft_idx"] >= 0)

    def test_parts_and_roles(self):
        parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello "},
                                                           {"type": "text", "text": "there"}]}],
                 "temperature": 0, "max_tokens": 8, "ignore_eos": True}
        joined = chat("hello there", max_tokens=8, ignore_eos=True)
        self.assertEqual(self.server.post("/v1/chat/completions", parts).json["choices"],
                         self.server.post("/v1/chat/completions", joined).json["choices"])

    def test_32_streams_equal_dspark_run(self):
        prompts = [f"story {i} of many" for i in range(32)]
        wanted = {prompt: self.run_text(prompt, "-n", "24", "--temp", "0.9", "--seed", "11", "--ignore-eos")
                  for prompt in prompts[:6]}

        def ask(prompt):
            connection, response = self.server.open_stream(
                "/v1/chat/completions", chat(prompt, max_tokens=24, temperature=0.9, seed=11, ignore_eos=True))
            chunks = events(response)
            connection.close()
            return chat_text(chunks)

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            together = dict(zip(prompts, pool.map(ask, prompts)))
        for prompt, text in wanted.items():
            self.assertEqual(together[prompt], text, prompt)
        for prompt in prompts[6:]:
            self.assertEqual(ask(prompt), together[prompt], prompt)


class Errors(ServeCase):
    def test_fields(self):
        base = chat("hello", max_tokens=4)
        for field, value in (("temperature", "hot"), ("temperature", -1), ("top_p", 2), ("top_k", 1.5), ("n", 0),
                             ("n", 100000), ("max_tokens", 0), ("max_tokens", "many"), ("stop", [1]),
                             ("stop", [""]), ("seed", "x"), ("logit_bias", []), ("logit_bias", {"x": 1}),
                             ("logprobs", 3), ("top_logprobs", 2), ("stream", "yes"), ("stream_options", 1),
                             ("messages", []), ("messages", "hello"), ("response_format", "json"),
                             ("speculation", "off"), ("tools", {}), ("presence_penalty", 3), ("model", 7)):
            answer = self.server.post("/v1/chat/completions", {**base, field: value})
            error = self.error(answer, 400)
            self.assertTrue((error["param"] or "").startswith(field), (field, value, error))
        self.error(self.server.post("/v1/chat/completions", {**base, "messages": [{"role": "king", "content": "x"}]}),
                   400, "messages[0].role")
        self.error(self.server.post("/v1/chat/completions", {**base, "messages": [{"role": "user"}]}), 400,
                   "messages[0].content")
        self.error(self.server.post("/v1/chat/completions", {**base, "model": "other"}), 404, "model")
        # Not known here, but no reason to refuse.
        self.assertEqual(self.server.post("/v1/chat/completions", {**base, "user": "me", "store": False}).status, 200)
        self.assertEqual(self.server.post("/v1/chat/completions", {**base, "n": None, "stop": None}).status, 200)

    def test_fields_that_would_change_the_answer(self):
        for field, value in (("functions", [{"name": "f"}]), ("function_call", {"name": "f"}), ("modalities", ["text", "audio"])):
            self.error(self.server.post("/v1/chat/completions", {**chat("hello", max_tokens=4), field: value}), 400, field)
        base = {"prompt": "hello", "max_tokens": 4}
        for fields, param in (({"suffix": "x"}, "suffix"), ({"best_of": 3}, "best_of"), ({"echo": True, "logprobs": 1}, "echo"),
                              ({"echo": True, "max_tokens": 0}, "max_tokens")):
            self.error(self.server.post("/v1/completions", {**base, **fields}), 400, param)
        size = len(self.server.post("/v1/embeddings", {"input": "x"}).json["data"][0]["embedding"])
        self.assertEqual(self.server.post("/v1/embeddings", {"input": "x", "dimensions": size}).status, 200)
        for wrong in (size - 1, size + 1, 0, "many"):
            self.error(self.server.post("/v1/embeddings", {"input": "x", "dimensions": wrong}), 400, "dimensions")

    def test_large_seeds(self):
        body = chat("hello", max_tokens=8, temperature=1.5, min_p=0, ignore_eos=True)
        texts = set()
        for seed in (2**62, 2**63 - 1, -2**63):
            first, again = (self.server.post("/v1/chat/completions", {**body, "seed": seed}) for _ in range(2))
            self.assertEqual(first.status, 200, first.body)
            self.assertEqual(first.json["choices"], again.json["choices"])
            texts.add(first.json["choices"][0]["message"]["content"])
        self.assertGreater(len(texts), 1)
        self.error(self.server.post("/v1/chat/completions", {**body, "seed": 2**63}), 400, "seed")

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": "\xff"}', b"[" * 100000,
                     b'{"a":' * 5000 + b"1" + b"}" * 5000):
            self.error(self.server.post("/v1/chat/completions", body), 400)

    def test_context(self):
        error = self.error(self.server.post("/v1/chat/completions", chat("word " * 3000)), 400)
        self.assertEqual(error["code"], "context_length_exceeded")

    def test_paths_and_methods(self):
        self.error(self.server.get("/nothing"), 404)
        self.error(self.server.get("/v1/chat/completions"), 405)
        self.error(self.server.post("/metrics", {}), 405)


class OpenApi(ServeCase):
    """What the routes without a generation read is what the file tells; the others: openapi_test.cc."""

    def test_fields_that_are_read(self):
        schemas = self.server.get("/openapi.json").json["components"]["schemas"]
        words = set()
        for name in ("routes_text.cc", "routes_state.cc"):
            words |= set(re.findall(r'"([a-z][a-z0-9_]*)"', (ROOT / "src" / "server" / name).read_text(encoding="utf-8")))
        for path, schema, body in (("/v1/embeddings", "EmbeddingsRequest", {"input": "x"}),
                                   ("/tokenize", "TokenizeRequest", {"content": "x"}),
                                   ("/detokenize", "DetokenizeRequest", {"tokens": [1]})):
            told = set(schemas[schema]["properties"])
            read = {word for word in words | told
                    if any(self.server.post(path, {**body, word: odd}).status == 400 for odd in ({"a": 7}, 7.5))}
            if schema == "TokenizeRequest" and self.server.post(path, {"prompt": 7}).status == 400:
                read.add("prompt")  # content goes first
            self.assertEqual(told, read, schema)

    def test_slots_is_a_list_as_told(self):
        schema = self.server.get("/openapi.json").json
        told = schema["paths"]["/slots"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        self.assertEqual(told["type"], "array")
        connection, response = self.server.open_stream("/v1/chat/completions", chat("x", max_tokens=1900, ignore_eos=True, n=8))
        slots = self.server.get("/slots").json
        connection.close()
        response.close()
        self.assertEqual(set(slots[0]), set(schema["components"]["schemas"]["Slot"]["properties"]))


class Others(ServeCase):
    def test_completions(self):
        body = {"prompt": "hello", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        answer = self.server.post("/v1/completions", body).json
        self.assertEqual(answer["object"], "text_completion")
        text = self.run_text("hello", "-n", "12", "--temp", "0", "--ignore-eos", "--raw")
        self.assertEqual(answer["choices"][0]["text"], text)
        ids = self.server.post("/tokenize", {"content": "hello"}).json["tokens"]
        for prompt in (ids, ["hello"], [ids]):
            same = self.server.post("/v1/completions", {**body, "prompt": prompt}).json
            self.assertEqual(same["choices"][0]["text"], text)
        several = self.server.post("/v1/completions", {**body, "prompt": ["hello", "other"], "n": 2}).json
        self.assertEqual([choice["index"] for choice in several["choices"]], [0, 1, 2, 3])
        echoed = self.server.post("/v1/completions", {**body, "echo": True}).json
        self.assertEqual(echoed["choices"][0]["text"], "hello" + text)
        logged = self.server.post("/v1/completions", {**body, "logprobs": 2}).json["choices"][0]["logprobs"]
        self.assertEqual(len(logged["tokens"]), 12)
        self.assertEqual(len(logged["token_logprobs"]), 12)
        self.assertEqual(logged["text_offset"][0], 0)
        for token, offset in zip(logged["tokens"], logged["text_offset"]):
            if not token.startswith(("bytes:", "<|")):  # parts of characters, and what is no text
                self.assertTrue(text[offset:].startswith(token), (token, offset, text))
        connection, response = self.server.open_stream("/v1/completions", body)
        chunks = events(response)
        connection.close()
        self.assertEqual("".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]), text)
        for prompt in (None, "", [], 5, [["a"]], [-1], [10**9], {}):
            error = self.error(self.server.post("/v1/completions", {**body, "prompt": prompt}), 400)
            self.assertTrue(error["param"].startswith("prompt"), (prompt, error))

    def test_tokenize_round_trip(self):
        text = "hello äöü 日本 <|im_end|>"
        tokens = self.server.post("/tokenize", {"content": text}).json["tokens"]
        self.assertEqual(self.server.post("/detokenize", {"tokens": tokens}).json["content"], text)
        self.error(self.server.post("/tokenize", {}), 400)
        self.error(self.server.post("/detokenize", {"tokens": [10**6]}), 400)
        self.error(self.server.post("/detokenize", {"tokens": "abc"}), 400, "tokens")

    def test_state(self):
        models = self.server.get("/v1/models").json
        self.assertEqual(models["object"], "list")
        self.assertEqual(len(models["data"]), 1)
        self.assertEqual(self.server.get("/health").status, 200)
        self.assertEqual(self.server.get("/health/live").status, 200)
        props = self.server.get("/props").json
        self.assertEqual(props["drafter"]["kind"], "ngram")
        self.assertEqual(props["policy"], "fixed:4")
        self.assertEqual(self.server.get("/slots").status, 200)

    def test_metrics(self):
        # An answer is on its way before the step that ended it is counted.
        self.server.wait_idle()
        before = self.server.metric("vllm:generation_tokens_total")
        self.server.post("/v1/chat/completions", chat("abcabcabc", max_tokens=20, ignore_eos=True))
        self.server.wait_idle()
        self.assertEqual(self.server.metric("vllm:generation_tokens_total") - before, 20)
        text = self.server.get("/metrics").body.decode()
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:prompt_tokens_total",
                     "vllm:time_to_first_token_seconds_bucket", "vllm:e2e_request_latency_seconds_count",
                     "vllm:request_success_total", "vllm:spec_decode_num_accepted_tokens_total",
                     "dspark_spec_decode_num_verified_tokens_total", "dspark_spec_decode_num_trimmed_tokens_total",
                     "dspark_verify_budget", "dspark_step_predicted_seconds", "dspark_idle_seconds_total", "dspark_cost_correction"):
            self.assertIn("\n" + name, text)
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(names), len(set(names)))

    def test_metrics_of_requests_in_vllms_words(self):
        names = ("vllm:request_params_n_count", "vllm:request_params_n_sum", "vllm:request_params_max_tokens_count",
                 "vllm:request_params_max_tokens_sum", "vllm:request_max_num_generation_tokens_count",
                 "vllm:request_max_num_generation_tokens_sum", "vllm:request_inference_time_seconds_count",
                 "vllm:iteration_tokens_total_sum", "vllm:iteration_tokens_total_count", "vllm:prompt_tokens_total",
                 "vllm:prompt_tokens_cached_total", "vllm:generation_tokens_total", "dspark_steps_total")
        self.server.wait_idle()
        before = {name: self.server.metric(name) for name in names}
        spent = self.server.metric("vllm:request_inference_time_seconds_sum")
        self.server.post("/v1/completions", {"prompt": ["abcabc", "x"], "max_tokens": 20, "ignore_eos": True, "n": 3})
        self.server.wait_idle()
        grown = {name: self.server.metric(name) - before[name] for name in names}
        self.assertEqual((grown[names[0]], grown[names[1]]), (2, 6))  # two prompts, three answers each
        self.assertEqual((grown[names[2]], grown[names[3]]), (6, 120))
        self.assertEqual((grown[names[4]], grown[names[5]]), (2, 40))
        self.assertEqual(grown[names[6]], 6)
        self.assertGreater(self.server.metric("vllm:request_inference_time_seconds_sum"), spent)
        computed = grown["vllm:prompt_tokens_total"] - grown["vllm:prompt_tokens_cached_total"]
        self.assertEqual(grown["vllm:iteration_tokens_total_sum"], computed + grown["vllm:generation_tokens_total"])
        self.assertEqual(grown["vllm:generation_tokens_total"], 120)
        self.assertGreater(grown["vllm:iteration_tokens_total_count"], 0)
        self.assertLessEqual(grown["vllm:iteration_tokens_total_count"], grown["dspark_steps_total"])
        # Without a limit it is the room that the context leaves.
        limit = self.server.metric("vllm:request_params_max_tokens_sum")
        answer = self.server.post("/v1/chat/completions", chat("x", stop=[chr(c) for c in range(97, 123)] + [" "])).json
        self.server.wait_idle()
        self.assertEqual(self.server.metric("vllm:request_params_max_tokens_sum") - limit,
                         2048 - answer["usage"]["prompt_tokens"])

    def test_prompt_tokens_include_cached_ones(self):
        names = ("vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total")
        prompt = "a prompt that is asked twice, and long enough to fill some pages of the cache: " * 4
        cached = []
        for _ in range(2):
            self.server.wait_idle()
            before = [self.server.metric(name) for name in names]
            usage = self.server.post("/v1/completions", {"prompt": prompt, "max_tokens": 2, "ignore_eos": True}).json["usage"]
            self.server.wait_idle()
            grown = [self.server.metric(name) - value for name, value in zip(names, before)]
            self.assertEqual(grown[0], usage["prompt_tokens"])
            cached.append(grown[1])
        self.assertEqual(cached[0], 0)
        self.assertGreater(cached[1], 0)
        self.assertLess(cached[1], usage["prompt_tokens"])

    def test_drafts_are_counted_only_where_there_are_any(self):
        names = ("vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_draft_tokens_total",
                 "dspark_spec_decode_num_rounds_total")

        def grown_by(policy):
            self.server.wait_idle()
            before = [self.server.metric(name) for name in names]
            body = chat("abcabcabcabc", max_tokens=64, ignore_eos=True, speculation={"policy": policy})
            self.assertEqual(self.server.post("/v1/chat/completions", body).status, 200)
            self.server.wait_idle()
            return [self.server.metric(name) - value for name, value in zip(names, before)]

        self.assertEqual(grown_by("off"), [0, 0, 63])  # the first token comes with the prompt
        drafts, tokens, rounds = grown_by("fixed:4")
        self.assertTrue(0 < drafts <= rounds, (drafts, rounds))
        self.assertTrue(drafts <= tokens <= 4 * drafts, (drafts, tokens))

    def test_dashboard_asks_for_metrics_that_exist(self):
        import re
        text = self.server.get("/metrics").body.decode()
        dashboard = json.loads((serve_harness.ROOT / "deploy" / "grafana-dashboard.json").read_text())
        asked = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                asked |= set(re.findall(r"(?:vllm:|dspark_)[a-z0-9_]+", target["expr"]))
        self.assertGreater(len(asked), 15)
        # Those that need a cost model or a confidence head are absent on a tiny model with look-up.
        absent = {name for name in asked if "\n" + name not in text
                  and not name.startswith(("dspark_calibration", "dspark_cost_verify"))}
        self.assertEqual(absent, set())

    def test_openapi_names_every_route(self):
        api = self.server.get("/openapi.json").json
        self.assertTrue(api["openapi"].startswith("3.1"))
        for path, methods in api["paths"].items():
            for method in methods:
                place = path.replace("{name}", "page.css").replace("{model}", "chat")
                answer = self.server.request(method.upper(), place, b"{}" if method != "get" else None)
                self.assertNotIn(answer.status, (404, 405), (method, path, answer.body[:200]))

    def test_page(self):
        page = self.server.get("/")
        self.assertEqual(page.status, 200)
        self.assertIn(b"<html", page.body.lower())
        self.assertEqual(self.server.get("/page/../routes.cc").status, 404)


if __name__ == "__main__":
    serve_harness.main()
