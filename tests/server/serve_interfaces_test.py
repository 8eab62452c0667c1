#!/usr/bin/env python3
"""`dspark serve`: Responses, Messages, embeddings, schemas, traces and simulated users, on a tiny model."""

import base64
import json
import re
import struct
import time

import serve_harness
from serve_harness import ServeCase, chat, events


def named_events(response):
    """[(event, data)] of a stream with names."""
    return [(name, json.loads(data)) for name, data in
            re.findall(r"event: (\S+)\ndata: (.*)\n\n", response.read().decode("utf-8"))]


class Interfaces(ServeCase):
    arguments = (*ServeCase.arguments, "--simulated-load")

    def setUp(self):
        body = chat("hello", max_tokens=20, ignore_eos=True)
        self.text = self.server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]

    def test_responses(self):
        body = {"input": "hello", "max_output_tokens": 20, "temperature": 0, "ignore_eos": True}
        whole = self.server.post("/v1/responses", body).json
        self.assertEqual(whole["output"][0]["content"][0]["text"], self.text)
        self.assertEqual((whole["status"], whole["incomplete_details"]["reason"]), ("incomplete", "max_output_tokens"))
        self.assertEqual(whole["usage"]["output_tokens"], 20)
        connection, response = self.server.open_stream("/v1/responses", body)
        stream = named_events(response)
        connection.close()
        self.assertEqual([data["sequence_number"] for _, data in stream], list(range(len(stream))))
        self.assertTrue(all(name == data["type"] for name, data in stream))
        self.assertEqual("".join(data["delta"] for name, data in stream if name == "response.output_text.delta"), self.text)
        self.assertEqual(stream[0][0], "response.created")
        self.assertEqual(stream[-1][0], "response.incomplete")
        self.assertEqual(stream[-1][1]["response"]["output"][0]["content"], whole["output"][0]["content"])

    def test_responses_items(self):
        turns = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
        body = {"input": turns, "max_output_tokens": 20, "temperature": 0, "ignore_eos": True}
        whole = self.server.post("/v1/responses", body).json
        self.assertEqual(whole["output"][0]["content"][0]["text"], self.text)
        self.error(self.server.post("/v1/responses", {**body, "previous_response_id": "x"}), 400, "previous_response_id")
        self.error(self.server.post("/v1/responses", {}), 400, "input")
        self.error(self.server.post("/v1/responses", {"input": [{"type": "image"}]}), 400, "input[0].type")
        self.error(self.server.post("/v1/responses", {"input": [7]}), 400, "input[0]")

    def test_messages(self):
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "temperature": 0, "ignore_eos": True}
        whole = self.server.post("/v1/messages", body).json
        self.assertEqual(whole["content"], [{"type": "text", "text": self.text}])
        self.assertEqual((whole["stop_reason"], whole["role"]), ("max_tokens", "assistant"))
        self.assertEqual(whole["usage"]["output_tokens"], 20)
        connection, response = self.server.open_stream("/v1/messages", body)
        stream = named_events(response)
        connection.close()
        self.assertEqual([name for name, _ in stream if name != "content_block_delta"],
                         ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"])
        self.assertEqual("".join(data["delta"]["text"] for name, data in stream if name == "content_block_delta"), self.text)
        counted = self.server.post("/v1/messages/count_tokens", body).json["input_tokens"]
        usage = whole["usage"]
        self.assertEqual(counted, usage["input_tokens"] + usage["cache_read_input_tokens"])
        self.error(self.server.post("/v1/messages", {"messages": [{"role": "system", "content": "x"}]}), 400,
                   "messages[0].role")
        image = {"messages": [{"role": "user", "content": [{"type": "image"}]}]}
        self.error(self.server.post("/v1/messages", image), 400, "messages[0].content[0].type")

    def test_embeddings(self):
        body = {"input": ["hello there", "something else"]}
        answer = self.server.post("/v1/embeddings", body).json
        vectors = [entry["embedding"] for entry in answer["data"]]
        self.assertEqual(len(vectors), 2)
        for vector in vectors:
            self.assertAlmostEqual(sum(x * x for x in vector), 1.0, places=4)
        self.assertNotEqual(vectors[0], vectors[1])
        packed = self.server.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json["data"][0]["embedding"]
        raw = base64.b64decode(packed)
        for a, b in zip(struct.unpack(f"<{len(raw) // 4}f", raw), vectors[0]):
            self.assertAlmostEqual(a, b, places=6)
        last = self.server.post("/v1/embeddings", {**body, "pooling": "last"}).json["data"][0]["embedding"]
        self.assertNotEqual(last, vectors[0])
        for field, value in (("input", None), ("input", []), ("input", [{}]), ("pooling", "max"), ("encoding_format", "x")):
            self.error(self.server.post("/v1/embeddings", {**body, field: value}), 400, field)

    def test_json_schema(self):
        schema = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}},
                  "required": ["kind", "n"], "additionalProperties": False}
        body = chat("hello", max_tokens=80, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        texts = set()
        for speculation in ({"policy": "off"}, {"policy": "fixed:4"}):
            answer = self.server.post("/v1/chat/completions", {**body, "speculation": speculation}).json["choices"][0]
            texts.add(answer["message"]["content"])
            value = json.loads(answer["message"]["content"])
            self.assertIn(value["kind"], ("a", "b"))
            self.assertIsInstance(value["n"], int)
            self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(len(texts), 1)
        bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
        self.error(self.server.post("/v1/chat/completions", {**body, "response_format": bad}), 400, "response_format")
        self.error(self.server.post("/v1/chat/completions", chat("x", grammar="root ::= (")), 400, "grammar")
        forced = self.server.post("/v1/chat/completions", chat("x", max_tokens=20, grammar='root ::= "yes" | "no"')).json
        self.assertIn(forced["choices"][0]["message"]["content"], ("yes", "no"))

    def test_forced_tool_calls(self):
        schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        body = chat("x", tools=[tool], tool_choice="required", max_tokens=200)
        choice = self.server.post("/v1/chat/completions", body).json["choices"][0]
        self.assertEqual(choice["finish_reason"], "tool_calls")
        call = choice["message"]["tool_calls"][0]["function"]
        self.assertEqual(call["name"], "f")
        self.assertIn(json.loads(call["arguments"]), ({"on": True}, {"on": False}))
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        pieces = [piece["function"] for chunk in events(response) if chunk != "[DONE]"
                  for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]
        connection.close()
        self.assertEqual((pieces[0]["name"], "".join(piece["arguments"] for piece in pieces)), ("f", call["arguments"]))
        answer = self.server.post("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 200,
                                                   "temperature": 0, "tool_choice": {"type": "any"},
                                                   "tools": [{"name": "f", "input_schema": schema}]}).json
        self.assertEqual((answer["stop_reason"], answer["content"][0]["name"]), ("tool_use", "f"))
        self.assertEqual(answer["content"][0]["input"], json.loads(call["arguments"]))
        self.error(self.server.post("/v1/chat/completions", chat("x", tool_choice="required")), 400, "tool_choice")
        self.error(self.server.post("/v1/chat/completions", chat("x", tools=[{}])), 400, "tools[0]")
        named = {"type": "function", "function": {"name": "g"}}
        self.error(self.server.post("/v1/chat/completions", chat("x", tools=[tool], tool_choice=named)), 400, "tool_choice")

    def test_trace_texts_are_the_content(self):
        body = chat("abcabc", max_tokens=60, ignore_eos=True, temperature=1.3, seed=3, dspark_trace=True, stop=["zzzz"])
        connection, response = self.server.open_stream("/v1/chat/completions", body)
        chunks = [chunk for chunk in events(response) if chunk != "[DONE]" and chunk["choices"]]
        connection.close()
        for chunk in chunks:
            content = chunk["choices"][0]["delta"].get("content") or ""
            self.assertEqual("".join(token["text"] for token in chunk["dspark"]["tokens"]), content)

    def test_simulated_users(self):
        def running():
            return self.server.metric("vllm:num_requests_running")
        self.assertEqual(self.server.request("PUT", "/dspark/load", {"users": 3}).json, {"users": 3})
        before = self.server.metric("vllm:generation_tokens_total")
        end = time.monotonic() + 60
        # No answer of theirs is longer than 160 tokens: more means that they ask again.
        while self.server.metric("vllm:generation_tokens_total") <= before + 3 * 160:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertEqual(self.server.request("PUT", "/dspark/load", {"users": 0}).status, 200)
        while running() > 0:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.error(self.server.request("PUT", "/dspark/load", {"users": 10**6}), 400, "users")

    def test_slots(self):
        connection, response = self.server.open_stream("/v1/chat/completions", chat("abc", max_tokens=1500, ignore_eos=True))
        response.read(50)
        slots = self.server.get("/slots").json
        self.assertEqual([slot["stream"] for slot in slots], [True])
        self.assertGreater(slots[0]["usage"]["completion_tokens"], 0)
        response.close()
        connection.close()


class LoadIsOff(ServeCase):
    def test_without_the_flag(self):
        self.error(self.server.request("PUT", "/dspark/load", {"users": 3}), 403)


if __name__ == "__main__":
    serve_harness.main()
