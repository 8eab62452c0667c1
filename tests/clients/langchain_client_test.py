#!/usr/bin/env python3
"""LangChain against the real server: a tool loop of several rounds, streams, structured answers. Run by tests/clients/run."""

import os
import unittest
from typing import Literal

os.environ["LANGSMITH_TRACING"] = "false"

from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from client_case import DRAFTED, KEY, SLOWDOWN, ClientCase  # noqa: E402

City = Literal["Paris", "Oslo"]


@tool
def get_weather(city: City) -> str:
    """The weather of a city."""
    return f"21 degrees in {city}"


@tool
def get_time(city: City) -> str:
    """The time of a city."""
    return f"half past nine in {city}"


TOOLS = {"get_weather": get_weather, "get_time": get_time}


class Pet(BaseModel):
    """A pet."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    kind: Literal["cat", "dog"]


def report(message):
    return message.response_metadata["token_usage"]["speculation"]


class LangChain(ClientCase):
    def model(self, extra=DRAFTED, **fields):
        return ChatOpenAI(model="default", base_url=self.url + "/v1", api_key=KEY, max_retries=0, timeout=120 * SLOWDOWN,
                          **{"temperature": 0, "max_completion_tokens": 100, "extra_body": extra, **fields})

    def loop(self, extra):
        """Two rounds in which tools must be called, then as the model likes, until it answers."""
        model = self.model(extra)
        messages = [HumanMessage("How is the weather in Paris, and how late is it there?")]
        for number in range(6):
            choice = ("required", "get_time")[number] if number < 2 else "auto" if number < 5 else "none"
            answer = model.bind_tools(list(TOOLS.values()), tool_choice=choice).invoke(messages)
            messages.append(answer)
            if answer.content and not answer.tool_calls:
                break
            if not answer.tool_calls:  # a model as small as the default one may have nothing to say to a bare result
                messages.append(HumanMessage("Tell me in a few sentences what the weather is like."))
            for call in answer.tool_calls:
                result = TOOLS[call["name"]].invoke(call)
                self.assertIsInstance(result, ToolMessage)
                messages.append(result)
        return messages

    def test_tool_loop(self):
        with_drafts, without = self.loop(DRAFTED), self.loop({"speculation": {"policy": "off"}})
        say = [[(message.type, message.content, [(call["name"], call["args"]) for call in
                                                 getattr(message, "tool_calls", ())]) for message in messages]
               for messages in (with_drafts, without)]
        self.assertEqual(say[0], say[1])
        answers = [message for message in with_drafts if message.type == "ai"]
        self.assertGreaterEqual(len(answers), 3)
        self.assertEqual([bool(message.tool_calls) for message in answers[:2] + answers[-1:]], [True, True, False])
        self.assertGreaterEqual(sum(message.type == "tool" for message in with_drafts), 2)
        self.assertTrue(answers[-1].content)
        self.assertFalse(any(message.invalid_tool_calls for message in answers))
        if self.real:
            self.assertGreater(sum(report(message)["accepted"] for message in answers), 0)

    def test_stream(self):
        prompt = "Why is the sky blue? Answer in two sentences."
        whole = self.same_text(lambda extra: self.model(extra).invoke(prompt), lambda message: message.content, report)
        chunks = list(self.model(stream_usage=True).stream(prompt))
        self.assertEqual("".join(chunk.content for chunk in chunks), whole.content)
        used = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
        self.assertEqual(used[-1]["output_tokens"], whole.usage_metadata["output_tokens"])

    def test_structured_answer(self):
        for method in ("json_schema", "function_calling"):
            pets = [self.model(extra).with_structured_output(Pet, method=method).invoke("Tell me of a pet, as JSON.")
                    for extra in (DRAFTED, {"speculation": {"policy": "off"}})]
            self.assertIsInstance(pets[0], Pet)
            self.assertEqual(pets[0], pets[1])


if __name__ == "__main__":
    unittest.main()
