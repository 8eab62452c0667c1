#!/usr/bin/env python3
"""`dspark serve`: constrained answers, tools, embeddings, the Responses and Messages interfaces, simulated users."""

import base64
import json
import socket
import struct
import time

import serve_harness
from serve_harness import ServeCase, Server, chat, chat_text, events

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"},
                                           "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
          "required": ["name", "age", "tags"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {
    "type": "object", "properties": {"word": {"enum": ["cat", "dog"]}}, "required": ["word"],
    "additionalProperties": False}}}


def named_events(response):
    """(event name, data) of a stream of named events."""
    out = []
    for block in response.read().decode().split("\n\n"):
        name = [line[6:].strip() for line in block.splitlines() if line.startswith("event:")]
        data = [line[5:].strip() for line in block.splitlines() if line.startswith("data:")]
        if data and data != ["[DONE]"]:
            out.append((name[0] if name else None, json.loads(data[0])))
    return out


class Constrained(ServeCase):
    def test_schema_with_and_without_speculation(self):
        for seed in range(4):
            body = chat("a pet", max_tokens=150, temperature=1.2, min_p=0, seed=seed, response_format={
                "type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}})
            texts = []
            for policy in ("fixed:4", "off"):
                answer = self.server.post("/v1/chat/completions", {**body, "speculation": {"policy": policy}})
                self.assertEqual(answer.status, 200, answer.body)
                texts.append(answer.json["choices"][0]["message"]["content"])
            self.assertEqual(texts[0], texts[1])
            pet = json.loads(texts[0])
            self.assertEqual(sorted(pet), ["age", "name", "tags"])
            self.assertIsInstance(pet["age"], int)

    def test_trace_texts_are_the_content(self):
        body = chat("abcabc", max_tokens=60, ignore_eos=True, temperature=1.3, seed=3, dspark_trace=True, stop=["zzzz"])
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        chunks = [chunk for chunk in events(response) if chunk != "[DONE]" and chunk["choices"]]
        connection.close()
        for chunk in chunks:
            content = chunk["choices"][0]["delta"].get("content") or ""
            self.assertEqual("".join(token["text"] for token in chunk["dspark"]["tokens"]), content)

    def test_grammar(self):
        answer = self.server.post("/v1/chat/completions", chat("go", max_tokens=20, grammar='root ::= ("yes" | "no") " sir"'))
        self.assertIn(answer.json["choices"][0]["message"]["content"], ("yes sir", "no sir"))
        self.assertEqual(answer.json["choices"][0]["finish_reason"], "stop")
        self.error(self.server.post("/v1/chat/completions", chat("go", grammar="root ::= (")), 400, "grammar")
        bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
        self.error(self.server.post("/v1/chat/completions", chat("go", response_format=bad)), 400,
                   "response_format.json_schema.schema")

    def test_faults_of_schemas_name_their_place(self):
        odd = {"type": "nothing"}
        odd_tool = {"type": "function", "function": {"name": "odd", "parameters": odd}}
        answer = self.server.post("/v1/chat/completions", chat("x", tools=[TOOL, odd_tool], tool_choice="required"))
        error = self.error(answer, 400, "tools[1].function.parameters")
        self.assertIn("'odd'", error["message"])
        self.error(self.server.post("/v1/completions", {"prompt": "x", "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": odd}}}), 400, "response_format.json_schema.schema")
        # In the words of the other interfaces; tools that the model is not shown count.
        responses = {"input": "x", "tools": [{"type": "web_search"}, {"type": "function", "name": "odd", "parameters": odd}]}
        self.error(self.server.post("/v1/responses", {**responses, "tool_choice": "required"}), 400, "tools[1].parameters")
        self.error(self.server.post("/v1/responses", {"input": "x", "text": {"format": {
            "type": "json_schema", "name": "x", "schema": odd}}}), 400, "text.format.schema")
        messages = {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        self.error(self.server.post("/v1/messages", {**messages, "tools": [{"name": "odd", "input_schema": odd}],
                                                     "tool_choice": {"type": "any"}}), 400, "tools[0].input_schema")
        self.error(self.server.post("/v1/messages", {**messages, "output_config": {"format": {
            "type": "json_schema", "schema": odd}}}), 400, "output_config.format.schema")

    def test_tools_with_a_schema_that_is_none(self):
        for wrong in ("{}", [], True, 5):
            tool = {"type": "function", "function": {"name": "f", "parameters": wrong}}
            self.error(self.server.post("/v1/chat/completions", chat("x", tools=[TOOL, tool], max_tokens=2)), 400,
                       "tools[1].function.parameters")

    def test_forced_tool_call(self):
        body = chat("look", max_tokens=100, tools=[TOOL], tool_choice="required")
        answer = self.server.post("/v1/chat/completions", body).json["choices"][0]
        self.assertEqual(answer["finish_reason"], "tool_calls")
        call = answer["message"]["tool_calls"][0]
        self.assertEqual(call["function"]["name"], "look_up")
        self.assertIn(json.loads(call["function"]["arguments"])["word"], ("cat", "dog"))
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        chunks = events(response)
        connection.close()
        deltas = [piece for chunk in chunks[:-1] for choice in chunk["choices"]
                  for piece in choice["delta"].get("tool_calls") or ()]
        self.assertEqual("".join(piece["function"].get("arguments") or "" for piece in deltas),
                         call["function"]["arguments"])
        self.assertEqual(chat_text(chunks), "")
        self.error(self.server.post("/v1/chat/completions", chat("x", tools=[{"type": "function"}])), 400)


class Interfaces(ServeCase):
    def test_embeddings(self):
        body = {"input": ["hello", "other"], "pooling": "last"}
        answer = self.server.post("/v1/embeddings", body)
        self.assertEqual(answer.status, 200, answer.body)
        vectors = [entry["embedding"] for entry in answer.json["data"]]
        self.assertEqual([entry["index"] for entry in answer.json["data"]], [0, 1])
        self.assertNotEqual(vectors[0], vectors[1])
        self.assertAlmostEqual(sum(x * x for x in vectors[0]), 1, places=4)
        coded = self.server.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json["data"][0]["embedding"]
        raw = base64.b64decode(coded)
        for got, wanted in zip(struct.unpack(f"<{len(raw) // 4}f", raw), vectors[0]):
            self.assertAlmostEqual(got, wanted, places=6)
        for wrong in (None, "", [], 5, [5.5], {}):
            self.error(self.server.post("/v1/embeddings", {"input": wrong}), 400)
        self.error(self.server.post("/v1/embeddings", {"input": "x", "pooling": "max"}), 400)

    def test_embeddings_are_means_by_default(self):
        def vector(text, **fields):
            return self.server.post("/v1/embeddings", {"input": text, **fields}).json["data"][0]["embedding"]

        self.assertEqual(vector("ab", pooling="mean"), vector("ab"))
        self.assertNotEqual(vector("ab", pooling="mean"), vector("ab", pooling="last"))
        self.assertAlmostEqual(sum(x * x for x in vector("ab", pooling="mean")), 1, places=4)
        # The mean of one is the last: and of two, that of both (of length 1 again).
        ids = self.server.post("/tokenize", {"content": "ab"}).json["tokens"]
        self.assertEqual(len(ids), 2)
        self.assertEqual(vector(ids[:1], pooling="mean"), vector(ids[:1], pooling="last"))
        self.error(self.server.post("/v1/embeddings", {"input": [10**6]}), 400, "input")
        long = self.error(self.server.post("/v1/embeddings", {"input": ids * 1024}), 400, "input")  # no room for one more
        self.assertEqual(long["code"], "context_length_exceeded")

    def test_responses(self):
        body = {"input": "hello", "max_output_tokens": 12, "temperature": 0, "ignore_eos": True}
        answer = self.server.post("/v1/responses", body).json
        wanted = self.server.post("/v1/chat/completions", chat("hello", max_tokens=12, ignore_eos=True)).json
        text = wanted["choices"][0]["message"]["content"]
        self.assertEqual(answer["object"], "response")
        self.assertEqual(answer["output"][0]["content"][0]["text"], text)
        self.assertEqual(answer["usage"]["output_tokens"], 12)
        connection, response = self.server.open_stream("/v1/responses", body)
        stream = named_events(response)
        connection.close()
        self.assertTrue(all(name == data["type"] for name, data in stream))
        self.assertEqual("".join(data["delta"] for name, data in stream if name == "response.output_text.delta"), text)
        numbers = [data["sequence_number"] for _, data in stream]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
        self.error(self.server.post("/v1/responses", {**body, "previous_response_id": "x"}), 400, "previous_response_id")
        self.error(self.server.post("/v1/responses", {"input": 5}), 400)

    def test_messages(self):
        body = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, "messages": [{"role": "user", "content": "hello"}]}
        answer = self.server.post("/v1/messages", body).json
        wanted = self.server.post("/v1/chat/completions", chat("hello", max_tokens=12, ignore_eos=True)).json
        text = wanted["choices"][0]["message"]["content"]
        self.assertEqual(answer["type"], "message")
        self.assertEqual("".join(part["text"] for part in answer["content"]), text)
        self.assertEqual(answer["stop_reason"], "max_tokens")
        connection, response = self.server.open_stream("/v1/messages", body)
        stream = named_events(response)
        connection.close()
        names = [name for name, _ in stream if name != "ping"]
        self.assertEqual(names[0], "message_start")
        self.assertEqual(names[-1], "message_stop")
        self.assertEqual("".join(data["delta"]["text"] for name, data in stream if name == "content_block_delta"), text)
        counted = self.server.post("/v1/messages/count_tokens", {"messages": body["messages"]}).json["input_tokens"]
        self.assertEqual(counted, answer["usage"]["input_tokens"])
        self.assertEqual(stream[0][1]["message"]["usage"]["input_tokens"], counted)

    def test_messages_tell_stop_sequences_and_the_input(self):
        prompt = [{"role": "user", "content": "a story that is longer than a page of the cache " * 3}]
        body = {"max_tokens": 30, "temperature": 0, "ignore_eos": True, "messages": prompt}
        counted = self.server.post("/v1/messages/count_tokens", {"messages": prompt}).json["input_tokens"]
        plain = self.server.post("/v1/messages", body).json
        self.assertEqual((plain["stop_reason"], plain["stop_sequence"]), ("max_tokens", None))
        text = plain["content"][0]["text"]
        stop = text[7:10]
        for sequences, reason, hit in ((["never said", stop], "stop_sequence", stop), (["never said"], "max_tokens", None)):
            asked = {**body, "stop_sequences": sequences}
            whole = self.server.post("/v1/messages", asked).json
            self.assertEqual((whole["stop_reason"], whole["stop_sequence"]), (reason, hit))
            self.assertEqual(whole["content"][0]["text"], text[:text.index(hit)] if hit else text)
            connection, response = self.server.open_stream("/v1/messages", asked)
            stream = named_events(response)
            connection.close()
            (delta,) = (data for name, data in stream if name == "message_delta")
            self.assertEqual(delta["delta"], {"stop_reason": reason, "stop_sequence": hit})
            begin = stream[0][1]["message"]
            self.assertEqual((begin["stop_reason"], begin["stop_sequence"]), (None, None))
            for usage in (begin["usage"], delta["usage"], whole["usage"]):
                self.assertGreater(usage["cache_read_input_tokens"], 0)  # asked before
                self.assertEqual(usage["cache_creation_input_tokens"], 0)
                self.assertEqual(usage["input_tokens"] + usage["cache_read_input_tokens"], counted)
        self.error(self.server.post("/v1/messages", {**body, "stop_sequences": [""]}), 400, "stop_sequences")


class Others(serve_harness.Tool):
    def test_simulated_users(self):
        server = Server("-m", self.chat_model, "-c", "2048", "--simulated-load")
        self.addCleanup(server.stop)
        self.assertEqual(server.request("PUT", "/dspark/load", {"users": 3}).json["users"], 3)
        end = time.monotonic() + serve_harness.TIMEOUT
        while server.metric("vllm:generation_tokens_total") < 50:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertEqual(server.request("PUT", "/dspark/load", {"users": 100000}).status, 400)
        self.assertEqual(server.request("PUT", "/dspark/load", {"users": 0}).json["users"], 0)
        while server.metric("vllm:num_requests_running") > 0:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        plain = Server("-m", self.chat_model, "--no-page")
        self.addCleanup(plain.stop)
        self.assertEqual(plain.request("PUT", "/dspark/load", {"users": 3}).status, 403)
        self.assertEqual(plain.get("/").status, 404)

    def test_deadline_and_queue_timeout(self):
        server = Server("-m", self.chat_model, "-c", "65536", "--parallel", "1", "--queue-timeout", "0.2",
                        "--stream-buffer", str(1 << 30))  # or the first one, which nobody reads, gives its place up
        self.addCleanup(server.stop)
        connection, response = server.open_stream("/v1/chat/completions", chat("abc", max_tokens=60000, ignore_eos=True))
        response.readline()
        late = server.post("/v1/chat/completions", chat("abc", max_tokens=2))
        self.assertEqual(late.status, 429, late.body)
        self.assertIn("retry-after", late.headers)
        connection.sock and connection.sock.shutdown(socket.SHUT_RDWR)
        response.close()
        connection.close()
        body = chat("abc", max_tokens=60000, ignore_eos=True, deadline_s=0.3)
        end = time.monotonic() + serve_harness.TIMEOUT
        while (answer := server.post("/v1/chat/completions", body)).status == 429:
            self.assertLess(time.monotonic(), end)
        self.assertEqual(answer.json["choices"][0]["finish_reason"], "length")
        self.assertLess(answer.json["usage"]["completion_tokens"], 60000)


if __name__ == "__main__":
    serve_harness.main()
