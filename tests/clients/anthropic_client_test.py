#!/usr/bin/env python3
"""The official `anthropic` client against /v1/messages of the real server. Run by tests/clients/run."""

import unittest

import anthropic

from client_case import DRAFTED, KEY, SLOWDOWN, ClientCase

CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}}, "required": ["city"],
        "additionalProperties": False}
TOOLS = [{"name": "get_weather", "description": "The weather of a city", "input_schema": CITY},
         {"name": "get_time", "description": "The time of a city", "input_schema": CITY}]
SKY = [{"role": "user", "content": "Why is the sky blue? Answer in two sentences."}]


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def report(message):
    return message.usage.model_extra["speculation"]


class Messages(ClientCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = anthropic.Anthropic(base_url=cls.url, api_key=KEY, max_retries=0, timeout=120 * SLOWDOWN)
        cls.addClassCleanup(cls.client.close)

    def ask(self, messages=SKY, temperature=0, **fields):
        # Newer clients take the temperature for those models only that their maker lists: it travels beside.
        extra = {"temperature": temperature, **fields.pop("extra_body", {})}
        return self.client.messages.create(model="default", messages=messages, extra_body=extra,
                                           **{"max_tokens": 40, **fields})

    def test_message(self):
        message = self.same_text(lambda extra: self.ask(extra_body=extra), text_of, report)
        self.assertEqual((message.type, message.role, message.model), ("message", "assistant", "default"))
        self.assertIn(message.stop_reason, ("end_turn", "max_tokens"))
        self.assertGreater(message.usage.input_tokens, 0)
        self.assertGreater(message.usage.output_tokens, 0)
        counted = self.client.messages.count_tokens(model="default", messages=SKY)
        self.assertEqual(counted.input_tokens, message.usage.input_tokens)
        self.same_text(lambda extra: self.ask(temperature=1, system="You are a pirate.", extra_body={"seed": 5, **extra}),
                       text_of, report)

    def test_stream(self):
        whole = self.ask(extra_body=DRAFTED)
        names = [event.type for event in self.ask(stream=True, extra_body=DRAFTED) if event.type != "ping"]
        self.assertEqual(names[:2], ["message_start", "content_block_start"])
        self.assertEqual(names[-3:], ["content_block_stop", "message_delta", "message_stop"])
        with self.client.messages.stream(model="default", messages=SKY, max_tokens=40,
                                         extra_body={"temperature": 0, **DRAFTED}) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, text_of(whole))
        self.assertEqual(text_of(final), text)
        self.assertEqual(final.stop_reason, whole.stop_reason)
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def test_tool_loop(self):
        messages = [{"role": "user", "content": "How is the weather in Oslo, and how late is it there?"}]
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_time"}):
            message = self.same_text(lambda extra, choice=choice: self.ask(
                messages, max_tokens=100, tools=TOOLS, tool_choice=choice, extra_body=extra),
                lambda message: [(block.name, block.input) for block in message.content if block.type == "tool_use"], report)
            self.assertEqual(message.stop_reason, "tool_use")
            uses = [block for block in message.content if block.type == "tool_use"]
            self.assertGreater(len(uses), 0)
            for use in uses:
                self.assertIn(use.name, (choice.get("name"),) if "name" in choice else ("get_weather", "get_time"))
                self.assertIn(use.input["city"], ("Paris", "Oslo"))
            messages += [{"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]},
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id,
                                                       "content": "4 degrees, noon"} for use in uses]}]
        last = self.same_text(lambda extra: self.ask(messages, tools=TOOLS, tool_choice={"type": "none"}, extra_body=extra),
                              text_of, report)
        self.assertTrue(text_of(last))
        self.assertNotEqual(last.stop_reason, "tool_use")

    def test_streamed_tool(self):
        choice = {"type": "tool", "name": "get_weather"}
        with self.client.messages.stream(model="default", messages=[{"role": "user", "content": "Weather in Paris?"}],
                                         max_tokens=100, tools=TOOLS, tool_choice=choice,
                                         extra_body={"temperature": 0, **DRAFTED}) as stream:
            pieces = "".join(event.partial_json for event in stream if event.type == "input_json")
            final = stream.get_final_message()
        use = next(block for block in final.content if block.type == "tool_use")
        self.assertEqual((use.name, final.stop_reason), ("get_weather", "tool_use"))
        self.assertIn(use.input["city"], ("Paris", "Oslo"))
        self.assertIn(use.input["city"], pieces)

    def test_errors(self):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.ask(temperature=-1)
        self.assertEqual(caught.exception.body["type"], "error")
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        self.assertIn("temperature", caught.exception.body["error"]["message"])
        with self.assertRaises(anthropic.BadRequestError):
            self.ask([{"role": "king", "content": "x"}])
        with self.assertRaises(anthropic.NotFoundError):
            self.client.messages.create(model="other", max_tokens=5, messages=SKY)
        with anthropic.Anthropic(base_url=self.url, api_key="wrong", max_retries=0) as stranger:
            with self.assertRaises(anthropic.AuthenticationError):
                stranger.messages.create(model="default", max_tokens=5, messages=SKY)


if __name__ == "__main__":
    unittest.main()
