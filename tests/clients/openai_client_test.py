#!/usr/bin/env python3
"""The official `openai` client against the real server: chat, streams, tools, JSON schema, log-probabilities, errors.

Run by tests/clients/run, which makes the environment. On the tiny model, or on $DSPARK_CLIENT_MODEL.
"""

import json
import os
import sys
import unittest
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from serve_harness import SLOWDOWN, Server, Tool  # noqa: E402

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                           "kind": {"enum": ["cat", "dog"]}},
          "required": ["name", "age", "kind"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}}, "required": ["city"],
                   "additionalProperties": False}}}


class OpenAI(Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = os.environ.get("DSPARK_CLIENT_MODEL") or cls.chat_model
        cls.server = Server("-m", f"default={model}", "-c", "2048", "--parallel", "4", "-d", "ngram",
                            environment={"DSPARK_API_KEY": "secret"})
        cls.addClassCleanup(cls.server.stop)
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1", api_key="secret", max_retries=0,
                                   timeout=120 * SLOWDOWN)
        cls.addClassCleanup(cls.client.close)

    def chat(self, text="hello", **fields):
        fields = {"max_tokens": 24, "temperature": 0, **fields}
        return self.client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}],
                                                   **fields)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["default"])

    def test_chat_and_stream_say_the_same(self):
        whole = self.chat(seed=3, temperature=1)
        chunks = list(self.chat(seed=3, temperature=1, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertIn(whole.choices[0].finish_reason, ("stop", "length"))

    def test_logprobs(self):
        choice = self.chat(logprobs=True, top_logprobs=2, max_tokens=5).choices[0]
        self.assertGreater(len(choice.logprobs.content), 0)
        for entry in choice.logprobs.content:
            self.assertLessEqual(entry.logprob, 0)
            self.assertEqual(len(entry.top_logprobs), 2)

    def test_json_schema(self):
        answer = self.chat("Tell me of a pet.", max_tokens=120, temperature=1, seed=1, response_format={
            "type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}})
        pet = json.loads(answer.choices[0].message.content)
        self.assertEqual(sorted(pet), ["age", "kind", "name"])
        self.assertIn(pet["kind"], ("cat", "dog"))
        self.assertTrue(0 <= pet["age"] <= 120)

    def test_json_object(self):
        answer = self.chat("Some JSON.", max_tokens=60, temperature=1, seed=2, response_format={"type": "json_object"})
        self.assertIsInstance(json.loads(answer.choices[0].message.content), dict)

    def test_forced_tool_loop(self):
        messages = [{"role": "user", "content": "How is the weather in Paris?"}]
        first = self.client.chat.completions.create(model="default", messages=messages, tools=[WEATHER], max_tokens=100,
                                                    temperature=0, tool_choice="required")
        call = first.choices[0].message.tool_calls[0]
        self.assertEqual(first.choices[0].finish_reason, "tool_calls")
        self.assertEqual(call.function.name, "get_weather")
        self.assertIn(json.loads(call.function.arguments)["city"], ("Paris", "Oslo"))
        messages += [first.choices[0].message.model_dump(exclude_none=True),
                     {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
        last = self.client.chat.completions.create(model="default", messages=messages, tools=[WEATHER], max_tokens=12,
                                                   temperature=0, tool_choice="none")
        self.assertFalse(last.choices[0].message.tool_calls)

    def test_streamed_tool_call(self):
        stream = self.chat("Weather in Oslo?", tools=[WEATHER], stream=True, max_tokens=100, tool_choice={
            "type": "function", "function": {"name": "get_weather"}})
        name, arguments, finish = "", "", None
        for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                name += call.function.name or ""
                arguments += call.function.arguments or ""
            finish = chunk.choices[0].finish_reason or finish
        self.assertEqual(name, "get_weather")
        self.assertIn(json.loads(arguments)["city"], ("Paris", "Oslo"))
        self.assertEqual(finish, "tool_calls")

    def test_extension_fields(self):
        answer = self.chat("abcabcabc", extra_body={"speculation": {"policy": "fixed:2"}, "ignore_eos": True})
        report = answer.usage.model_extra["speculation"]
        self.assertGreaterEqual(report["drafted"], report["accepted"])

    def test_completions_and_embeddings(self):
        answer = self.client.completions.create(model="default", prompt="hello", max_tokens=5, temperature=0)
        self.assertEqual(answer.object, "text_completion")
        vectors = self.client.embeddings.create(model="default", input=["hello", "world"])
        self.assertEqual(len(vectors.data), 2)
        self.assertAlmostEqual(sum(x * x for x in vectors.data[0].embedding), 1.0, places=3)

    def test_responses(self):
        answer = self.client.responses.create(model="default", input="hello", max_output_tokens=10, temperature=0)
        self.assertIsInstance(answer.output_text, str)
        kinds = [event.type for event in self.client.responses.create(model="default", input="hello", stream=True,
                                                                      max_output_tokens=10, temperature=0)]
        self.assertEqual(kinds[0], "response.created")
        self.assertIn(kinds[-1], ("response.completed", "response.incomplete"))

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
        with openai.OpenAI(base_url=self.client.base_url, api_key="wrong", max_retries=0) as stranger:
            with self.assertRaises(openai.AuthenticationError):
                stranger.models.list()


if __name__ == "__main__":
    unittest.main()
