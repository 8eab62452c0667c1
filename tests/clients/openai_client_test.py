#!/usr/bin/env python3
"""The official `openai` client against the real server: chat, streams, tools, JSON schema, log-probabilities, errors.

Run by tests/clients/run, which installs the client.
"""

import json
import unittest

import openai

from client_case import DRAFTED, KEY, SLOWDOWN, ClientCase

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                           "kind": {"enum": ["cat", "dog"]}},
          "required": ["name", "age", "kind"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}}, "required": ["city"],
                   "additionalProperties": False}}}
TIME = {"type": "function", "function": {
    "name": "get_time", "description": "The time of a city", "parameters": WEATHER["function"]["parameters"]}}
SKY = "Why is the sky blue? Answer in two sentences."


def report(answer):
    return answer.usage.model_extra["speculation"]


class OpenAI(ClientCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.url + "/v1", api_key=KEY, max_retries=0, timeout=120 * SLOWDOWN)
        cls.addClassCleanup(cls.client.close)

    def chat(self, messages=SKY, **fields):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        fields = {"max_tokens": 40, "temperature": 0, **fields}
        return self.client.chat.completions.create(model="default", messages=messages, **fields)


class Chat(OpenAI):
    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["default"])
        self.assertEqual(self.client.models.retrieve("default").id, "default")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_chat_with_and_without_speculation(self):
        for fields in ({"temperature": 0}, {"temperature": 0.8, "seed": 7}, {"temperature": 1, "seed": 8, "top_p": 0.9}):
            answer = self.same_text(lambda extra, fields=fields: self.chat(extra_body=extra, **fields),
                                    lambda answer: answer.choices[0].message.content, report)
            self.assertEqual(answer.choices[0].message.role, "assistant")
            self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
            self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_stream(self):
        whole = self.chat(seed=3, temperature=1, extra_body=DRAFTED)
        chunks = list(self.chat(seed=3, temperature=1, stream=True, stream_options={"include_usage": True},
                                extra_body=DRAFTED))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual([chunk.usage is not None for chunk in chunks], [False] * (len(chunks) - 1) + [True])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(report(chunks[-1]).keys(), report(whole).keys())
        self.assertEqual([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1],
                         whole.choices[0].finish_reason)
        plain = list(self.chat(seed=3, temperature=1, stream=True))
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in plain))

    def test_stream_helper(self):
        # The client's own accumulator is strict about the order and the indices of deltas.
        with self.client.chat.completions.stream(model="default", messages=[{"role": "user", "content": SKY}],
                                                 max_tokens=20, temperature=0) as stream:
            kinds = {event.type for event in stream}
            final = stream.current_completion_snapshot
        self.assertIn("content.delta", kinds)
        self.assertEqual(final.choices[0].message.content, self.chat(max_tokens=20).choices[0].message.content)

    def test_logprobs(self):
        def entries(answer):
            return [entry.model_dump() for entry in answer.choices[0].logprobs.content]

        answer = self.same_text(lambda extra: self.chat(logprobs=True, top_logprobs=3, extra_body=extra), entries, report)
        self.assertEqual(len(entries(answer)), answer.usage.completion_tokens - (answer.choices[0].finish_reason == "stop"))
        for entry in answer.choices[0].logprobs.content:
            self.assertLessEqual(entry.logprob, 0)
            self.assertEqual(len(entry.top_logprobs), 3)
            self.assertAlmostEqual(entry.top_logprobs[0].logprob, entry.logprob)

    def test_n_and_stop(self):
        several = self.chat(n=2, seed=5, temperature=1).choices
        self.assertEqual([choice.index for choice in several], [0, 1])
        self.assertEqual(several[1].message.content, self.chat(seed=6, temperature=1).choices[0].message.content)
        text = self.chat().choices[0].message.content
        cut = self.chat(stop=[text[8:12]]).choices[0]
        self.assertEqual((cut.finish_reason, cut.message.content), ("stop", text[:text.index(text[8:12])]))

    def test_json_schema(self):
        for seed in (1, 2):
            answer = self.same_text(
                lambda extra, seed=seed: self.chat("Tell me of a pet, as JSON.", max_tokens=120, temperature=1, seed=seed,
                                                   response_format=FORMAT, extra_body=extra),
                lambda answer: answer.choices[0].message.content, report)
            pet = json.loads(answer.choices[0].message.content)
            self.assertEqual(sorted(pet), ["age", "kind", "name"])
            self.assertIn(pet["kind"], ("cat", "dog"))
            self.assertTrue(0 <= pet["age"] <= 120)
            self.assertLessEqual(len(pet["name"]), 12)

    def test_json_object(self):
        answer = self.chat("Some JSON.", max_tokens=60, temperature=1, seed=2, response_format={"type": "json_object"})
        self.assertIsInstance(json.loads(answer.choices[0].message.content), dict)

    def test_default_policy_has_the_same_text(self):
        # What a client gets that knows nothing of speculation.
        wanted = self.chat(max_tokens=60, extra_body={"speculation": {"policy": "off"}})
        self.assertEqual(self.chat(max_tokens=60).choices, wanted.choices)


class Tools(OpenAI):
    def check_call(self, call, names):
        self.assertEqual(call.type, "function")
        self.assertIn(call.function.name, names)
        self.assertIn(json.loads(call.function.arguments)["city"], ("Paris", "Oslo"))

    def test_loop_of_two_calls_and_an_answer(self):
        """A hand-written agent: a tool is called, its result goes back, twice, then the model answers."""
        messages = [{"role": "user", "content": "How is the weather in Paris, and how late is it there?"}]
        for choice, names in (("required", ("get_weather", "get_time")),
                              ({"type": "function", "function": {"name": "get_time"}}, ("get_time",))):
            answer = self.turn(messages, choice)
            self.assertEqual(answer.finish_reason, "tool_calls")
            messages.append(answer.message.model_dump(exclude_none=True))
            for call in answer.message.tool_calls:
                self.check_call(call, names)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "21 degrees, half past nine"})
        self.assertEqual(len([message for message in messages if message["role"] == "tool"]), 2)
        # A model as small as the default one may have nothing to say to a bare result.
        messages.append({"role": "user", "content": "Tell me in a few sentences what the weather is like."})
        answer = self.turn(messages, "none")
        self.assertFalse(answer.message.tool_calls)
        self.assertTrue(answer.message.content)

    def turn(self, messages, choice):
        def say(answer):
            calls = answer.choices[0].message.tool_calls or ()
            return answer.choices[0].message.content, [(call.function.name, call.function.arguments) for call in calls]

        return self.same_text(lambda extra: self.chat(messages, tools=[WEATHER, TIME], max_tokens=100, tool_choice=choice,
                                                      extra_body=extra), say, report).choices[0]

    def test_auto(self):
        # The model is free here; whatever it does must be told apart rightly.
        answer = self.same_text(lambda extra: self.chat("The weather in Oslo?", tools=[WEATHER], max_tokens=60,
                                                        tool_choice="auto", extra_body=extra),
                                lambda answer: answer.choices[0].message.model_dump(exclude={"tool_calls"}), report)
        for call in answer.choices[0].message.tool_calls or ():
            self.assertEqual(call.function.name, "get_weather")
            json.loads(call.function.arguments)

    def test_streamed_call(self):
        stream = self.chat("Weather in Oslo?", tools=[WEATHER], stream=True, max_tokens=100, extra_body=DRAFTED,
                           tool_choice={"type": "function", "function": {"name": "get_weather"}})
        name, arguments, finish, text = "", "", None, ""
        for chunk in stream:
            for choice in chunk.choices:
                for call in choice.delta.tool_calls or ():
                    self.assertEqual(call.index, 0)
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        self.assertEqual((name, text, finish), ("get_weather", "", "tool_calls"))
        self.assertIn(json.loads(arguments)["city"], ("Paris", "Oslo"))


class Others(OpenAI):
    def test_completions(self):
        answer = self.same_text(
            lambda extra: self.client.completions.create(model="default", prompt="The capital of France is", max_tokens=40,
                                                         temperature=0, extra_body=extra),
            lambda answer: answer.choices[0].text, report)
        self.assertEqual(answer.object, "text_completion")
        pieces = self.client.completions.create(model="default", prompt="The capital of France is", max_tokens=40,
                                                temperature=0, stream=True)
        self.assertEqual("".join(piece.choices[0].text for piece in pieces), answer.choices[0].text)

    def test_embeddings(self):
        vectors = self.client.embeddings.create(model="default", input=["hello", "world"])  # asks for base64
        floats = self.client.embeddings.create(model="default", input=["hello", "world"], encoding_format="float")
        self.assertEqual([entry.index for entry in vectors.data], [0, 1])
        for one, other in zip(vectors.data, floats.data):
            self.assertAlmostEqual(sum(x * x for x in one.embedding), 1.0, places=3)
            self.assertEqual(len(one.embedding), len(other.embedding))
            self.assertLess(max(abs(a - b) for a, b in zip(one.embedding, other.embedding)), 1e-5)
        self.assertGreater(vectors.usage.prompt_tokens, 0)

    def test_responses(self):
        def ask(extra, **fields):
            return self.client.responses.create(model="default", input=SKY, max_output_tokens=40, temperature=0,
                                                extra_body=extra, **fields)

        answer = self.same_text(ask, lambda answer: answer.output_text, report)
        self.assertEqual(answer.output_text, self.chat().choices[0].message.content)
        self.assertIn(answer.status, ("completed", "incomplete"))
        events = list(ask(DRAFTED, stream=True))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[0], "response.created")
        self.assertIn(kinds[-1], ("response.completed", "response.incomplete"))
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"),
                         answer.output_text)
        self.assertEqual(events[-1].response.output_text, answer.output_text)
        self.assertEqual(events[-1].response.usage.output_tokens, answer.usage.output_tokens)

    def test_responses_stream_helper(self):
        with self.client.responses.stream(model="default", input=SKY, max_output_tokens=200, temperature=0) as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        self.assertTrue(text)

    def test_responses_tools(self):
        tool = {"type": "function", "strict": True, **WEATHER["function"]}
        messages = [{"role": "user", "content": "The weather in Oslo?"}]
        first = self.client.responses.create(model="default", input=messages, tools=[tool], tool_choice="required",
                                             max_output_tokens=100, temperature=0)
        call = next(item for item in first.output if item.type == "function_call")
        self.assertEqual(call.name, "get_weather")
        self.assertIn(json.loads(call.arguments)["city"], ("Paris", "Oslo"))
        messages += [call.model_dump(exclude_none=True),
                     {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}]
        last = self.client.responses.create(model="default", input=messages, tools=[tool], tool_choice="none",
                                            max_output_tokens=30, temperature=0)
        self.assertTrue(last.output_text)

    def refused(self, kind, param, ask):
        with self.assertRaises(kind) as caught:
            ask()
        self.assertEqual(caught.exception.param, param)
        self.assertTrue(caught.exception.message)
        return caught.exception

    def test_errors(self):
        bad = openai.BadRequestError
        for field, value in (("temperature", -1), ("top_p", 2), ("n", 0), ("max_tokens", 0), ("seed", "x"),
                             ("top_logprobs", 99), ("presence_penalty", 3), ("logit_bias", {"x": 1})):
            error = self.refused(bad, field, lambda field=field, value=value: self.chat(**{field: value, "logprobs": True}))
            self.assertEqual(error.type, "invalid_request_error")
        self.refused(bad, "messages[0].role", lambda: self.chat([{"role": "king", "content": "x"}]))
        self.refused(bad, "temperature", lambda: self.chat(temperature=-1, stream=True))
        long = self.refused(bad, "messages", lambda: self.chat("word " * 3000))
        self.assertEqual(long.code, "context_length_exceeded")
        self.refused(bad, "speculation.policy", lambda: self.chat(extra_body={"speculation": {"policy": "maybe"}}))
        self.refused(bad, "previous_response_id", lambda: self.client.responses.create(
            model="default", input="x", previous_response_id="resp_1"))
        self.refused(openai.NotFoundError, "model", lambda: self.client.chat.completions.create(
            model="other", messages=[{"role": "user", "content": "x"}]))
        with openai.OpenAI(base_url=self.client.base_url, api_key="wrong", max_retries=0) as stranger:
            with self.assertRaises(openai.AuthenticationError):
                stranger.models.list()


if __name__ == "__main__":
    unittest.main()
