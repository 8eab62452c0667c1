#!/usr/bin/env python3
"""`dspark serve` with requests as coding agents send them: Codex over /v1/responses, Claude Code over /v1/messages. Whole
conversations, streamed: a question, a call of a tool, its result, and what comes after. What an agent sends that has no
meaning here must change nothing: each turn equals the same one over /v1/chat/completions."""

import json
import unittest

import serve_harness
from serve_harness import ROOT, Server
from serve_interfaces_test import named_events
from tiny_model import write_tiny_model

TEMPLATE = ROOT / "tests" / "data" / "chat" / "qwen3-0.6b.jinja"
COMMAND = {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}},
                                            "workdir": {"type": "string"}},
           "required": ["command"], "additionalProperties": False}
PLAN = {"type": "object", "properties": {"plan": {"type": "array", "items": {"type": "object", "properties": {
    "step": {"type": "string"}, "status": {"type": "string"}}, "required": ["step", "status"]}}}, "required": ["plan"]}
# Without "he", which may be one token or two: its tokens are its bytes.
REASONING = "I look first."


def saying(text):
    """Fields that make the whole text of an answer this one."""
    return {"grammar": "root ::= " + json.dumps(text, ensure_ascii=False), "grammar_scope": "text"}


def calling(name, arguments):
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return saying(f"<think>\n{REASONING}\n</think>\n\nLet me see.\n<tool_call>\n{call}\n</tool_call>")


FREE = {"temperature": 0, "ignore_eos": True}


class Agents(serve_harness.Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = str(cls.path / "qwen3.gguf")
        write_tiny_model(model, template=TEMPLATE.read_text(encoding="utf-8"))
        cls.server = Server("-m", f"tiny={model}", "-c", "8192", "-d", "ngram", "--spec", "fixed:4")
        cls.addClassCleanup(cls.server.stop)

    def stream(self, path, body, headers):
        connection, response = self.server.open_stream(path, body, headers)
        self.assertEqual(response.status, 200, None if response.status == 200 else response.read())
        stream = named_events(response)
        connection.close()
        self.assertTrue(all(name == data["type"] for name, data in stream))
        return stream

    def chat(self, messages, tools, **fields):
        answer = self.server.post("/v1/chat/completions", {"messages": messages, "tools": tools, "max_tokens": 16, **FREE,
                                                           **fields})
        self.assertEqual(answer.status, 200, answer.body)
        message = answer.json["choices"][0]["message"]
        return message["content"], message.get("reasoning_content") or "", answer.json["usage"]["prompt_tokens"]

    def refused(self, path, body, param, headers=None):
        answer = self.server.post(path, body, headers)
        self.assertEqual(answer.status, 400, answer.body[:500])
        self.assertEqual(answer.json["error"]["param"], param)
        self.assertTrue(answer.json["error"]["message"].startswith(param + ": "))


class Reasoning(Agents):
    def test_reasoning_tokens_of_chats(self):
        for policy in ("fixed:4", "off"):
            answer = self.server.post("/v1/chat/completions", {
                "messages": [{"role": "user", "content": "hi"}], "speculation": {"policy": policy}, "n": 2,
                **saying(f"<think>\n{REASONING}\n</think>\n\nYes.")}).json
            self.assertEqual([choice["message"]["reasoning_content"] for choice in answer["choices"]], [REASONING] * 2)
            self.assertEqual(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 2 * len(REASONING))
        plain = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], **saying("Yes.")})
        self.assertEqual(plain.json["usage"]["completion_tokens_details"]["reasoning_tokens"], 0)


class Codex(Agents):
    HEADERS = {"Authorization": "Bearer none", "Accept": "text/event-stream", "OpenAI-Beta": "responses=experimental",
               "originator": "codex_cli_rs", "session_id": "0199a213-81c0-7800-8aa1-bbab2a035a53",
               "conversation_id": "0199a213-81c0-7800-8aa1-bbab2a035a53", "User-Agent": "codex_cli_rs/0.99.0"}
    FUNCTIONS = ({"type": "function", "name": "shell", "description": "Runs a command.", "strict": False, "parameters": COMMAND},
                 {"type": "function", "name": "update_plan", "description": "Updates the plan.", "strict": False,
                  "parameters": PLAN})
    PATCH = {"type": "custom", "name": "apply_patch", "description": "Changes files.", "format": {"type": "text"}}
    # What the model is shown of them, in this order of fields.
    SHOWN = [{"type": "function", "function": {key: tool[key] for key in ("name", "description", "strict", "parameters")}}
             for tool in FUNCTIONS]
    SHOWN_PATCH = {"type": "function", "function": {
        "name": "apply_patch", "description": "Changes files.", "parameters": {
            "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
            "additionalProperties": False}}}
    CONTEXT = "<environment_context>\n  <cwd>/home/me/project</cwd>\n</environment_context>"

    def body(self, items, tools, **fields):
        return {"model": "tiny", "instructions": "You are a coding agent.", "input": items, "tools": tools, "tool_choice": "auto",
                "parallel_tool_calls": False, "reasoning": {"effort": "medium", "summary": "auto"}, "store": False,
                "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0199a213-81c0-7800-8aa1-bbab2a035a53",
                "text": {"verbosity": "medium"}, "service_tier": "auto", "client_metadata": {"a": "b"}, **fields}

    def question(self):
        return [{"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
                for role, text in (("developer", "Ask before you delete."), ("user", self.CONTEXT), ("user", "What is here?"))]

    def asked(self):
        return [{"role": "system", "content": "You are a coding agent."}, {"role": "system", "content": "Ask before you delete."},
                {"role": "user", "content": self.CONTEXT}, {"role": "user", "content": "What is here?"}]

    def turn(self, items, tools, **fields):
        """The items of a streamed answer, its text, and the whole response."""
        stream = self.stream("/v1/responses", self.body(items, tools, **fields), self.HEADERS)
        self.assertEqual([name for name, _ in stream[:2]], ["response.created", "response.in_progress"])
        numbers = [data["sequence_number"] for _, data in stream]
        self.assertEqual(numbers, list(range(len(numbers))))
        name, last = stream[-1]
        self.assertIn(name, ("response.completed", "response.incomplete"))
        done = [data["item"] for name, data in stream if name == "response.output_item.done"]
        self.assertEqual(last["response"]["output"], done)
        text = "".join(data["delta"] for name, data in stream if name == "response.output_text.delta")
        return done, text, last["response"], stream

    def sent_back(self, items):
        """Items of an answer as Codex puts them into its next request."""
        back = []
        for item in items:
            item = {key: value for key, value in item.items() if key not in ("id", "status")}
            if item["type"] == "reasoning":
                item["encrypted_content"] = None
            back.append(item)
        return back

    def test_conversation_with_a_function(self):
        tools = [*self.FUNCTIONS, {"type": "local_shell"}, {"type": "web_search", "external_web_access": False}]
        items, text, response, stream = self.turn(self.question(), tools, **calling("shell", {"command": ["ls", "-a"]}))
        self.assertEqual([item["type"] for item in items], ["reasoning", "message", "function_call"])
        self.assertEqual(items[0]["content"][0]["text"], REASONING)
        self.assertEqual(text, "Let me see.")
        call = items[2]
        self.assertEqual((call["name"], json.loads(call["arguments"])), ("shell", {"command": ["ls", "-a"]}))
        self.assertEqual("".join(data["delta"] for name, data in stream if name == "response.function_call_arguments.delta"),
                         call["arguments"])
        self.assertEqual((response["status"], response["store"], response["parallel_tool_calls"]), ("completed", False, False))
        self.assertEqual(response["usage"]["output_tokens_details"]["reasoning_tokens"], len(REASONING))
        self.assertEqual(response["usage"]["total_tokens"],
                         response["usage"]["input_tokens"] + response["usage"]["output_tokens"])
        self.assertEqual([tool["name"] for tool in response["tools"]], [tool["name"] for tool in self.FUNCTIONS])
        output = json.dumps({"output": "a.txt\n", "metadata": {"exit_code": 0, "duration_seconds": 0.1}})
        history = [*self.question(), *self.sent_back(items),
                   {"type": "function_call_output", "call_id": call["call_id"], "output": output}]
        _, text, response, _ = self.turn(history, tools, max_output_tokens=16, **FREE)
        messages = [*self.asked(), {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "shell", "arguments": call["arguments"]}}]},
            {"role": "tool", "tool_call_id": "x", "content": output}]
        content, _, prompt_tokens = self.chat(messages, self.SHOWN)
        self.assertEqual((text, response["usage"]["input_tokens"]), (content, prompt_tokens))
        # The result may come in parts too.
        parts = [{"type": "input_text", "text": output[:9]}, {"type": "input_text", "text": output[9:]}]
        again = self.server.post("/v1/responses", self.body([*history[:-1], {**history[-1], "output": parts}], tools,
                                                            max_output_tokens=16, **FREE), self.HEADERS).json
        self.assertEqual(again["usage"]["input_tokens"], prompt_tokens)

    def test_conversation_with_a_custom_tool(self):
        patch = '*** Begin Patch\n*** Add File: a "b".txt\n+hé\n*** End Patch'
        tools = [*self.FUNCTIONS, self.PATCH]
        items, _, response, stream = self.turn(self.question(), tools, **calling("apply_patch", {"input": patch}))
        self.assertEqual([item["type"] for item in items], ["reasoning", "message", "custom_tool_call"])
        call = items[2]
        self.assertEqual((call["name"], call["input"]), ("apply_patch", patch))
        self.assertEqual("".join(data["delta"] for name, data in stream if name == "response.custom_tool_call_input.delta"), patch)
        self.assertFalse(any("function_call" in name for name, _ in stream))
        history = [*self.question(), *self.sent_back(items),
                   {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "Success."}]
        _, text, response, _ = self.turn(history, tools, max_output_tokens=16, **FREE)
        messages = [*self.asked(), {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "apply_patch", "arguments": json.dumps({"input": patch})}}]},
            {"role": "tool", "tool_call_id": "x", "content": "Success."}]
        content, _, prompt_tokens = self.chat(messages, [*self.SHOWN, self.SHOWN_PATCH])
        self.assertEqual((text, response["usage"]["input_tokens"]), (content, prompt_tokens))
        forced = self.server.post("/v1/responses", self.body(
            self.question(), tools, tool_choice={"type": "custom", "name": "apply_patch"}, max_output_tokens=400, seed=1))
        self.assertEqual(forced.status, 200, forced.body)
        (call,) = (item for item in forced.json["output"] if item["type"] != "reasoning")
        self.assertEqual((call["type"], call["name"]), ("custom_tool_call", "apply_patch"))
        self.assertIsInstance(call["input"], str)

    def test_what_would_change_the_answer_is_refused(self):
        grammar = {**self.PATCH, "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}}
        for fields, param in (({"tools": [self.FUNCTIONS[0], grammar]}, "tools[1].format"),
                              ({"previous_response_id": "resp_1"}, "previous_response_id"),
                              ({"conversation": "conv_1"}, "conversation"), ({"background": True}, "background"),
                              ({"include": ["message.output_text.logprobs"]}, "include"),
                              ({"input": [*self.question(), {"type": "item_reference", "id": "msg_1"}]}, "input[3].type"),
                              ({"input": [{"type": "message", "role": "user", "content": [
                                  {"type": "input_image", "image_url": "data:"}]}]}, "input[0].content"),
                              ({"tool_choice": {"type": "web_search"}}, "tool_choice")):
            self.refused("/v1/responses", {**self.body(self.question(), list(self.FUNCTIONS)), **fields}, param, self.HEADERS)
        long = self.server.post("/v1/responses", self.body("word " * 9000, []), self.HEADERS)
        self.assertEqual((long.status, long.json["error"]["param"]), (400, "input"))


class ClaudeCode(Agents):
    PATH = "/v1/messages?beta=true"
    HEADERS = {"x-api-key": "none", "anthropic-version": "2023-06-01", "x-app": "cli",
               "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
               "anthropic-dangerous-direct-browser-access": "true", "User-Agent": "claude-cli/2.0.0 (external, cli)",
               "X-Stainless-Lang": "js", "X-Stainless-Retry-Count": "0", "X-Stainless-Timeout": "600"}
    CACHED = {"cache_control": {"type": "ephemeral"}}
    TOOLS = [{"name": "Bash", "description": "Runs a command.", "input_schema": {
        "$schema": "http://json-schema.org/draft-07/schema#", **COMMAND}},
             {"name": "TodoWrite", "description": "Keeps a list.", "input_schema": PLAN, **CACHED}]
    SHOWN = [{"type": "function", "function": {"name": tool["name"], "description": tool["description"],
                                               "parameters": tool["input_schema"]}} for tool in TOOLS]
    REMINDER = "<system-reminder>\nBe brief.\n</system-reminder>"

    def body(self, messages, **fields):
        return {"model": "tiny", "max_tokens": 600, "temperature": 1, "messages": messages, "tools": self.TOOLS, "system": [
            {"type": "text", "text": "You are a coding agent.", **self.CACHED}, {"type": "text", "text": " Help.", **self.CACHED}],
                "metadata": {"user_id": "user_1_account__session_2"}, "thinking": {"type": "enabled", "budget_tokens": 1024},
                "context_management": {"edits": []}, "output_config": {"effort": "medium"}, "service_tier": "auto", **fields}

    def question(self):
        return {"role": "user", "content": [{"type": "text", "text": self.REMINDER},
                                            {"type": "text", "text": "What is here?", **self.CACHED}]}

    def turn(self, messages, **fields):
        """The content blocks of a streamed answer put together, as Anthropic's clients do, and the whole message."""
        stream = self.stream(self.PATH, self.body(messages, **fields), self.HEADERS)
        self.assertEqual((stream[0][0], stream[-2][0], stream[-1][0]), ("message_start", "message_delta", "message_stop"))
        blocks, json_text = [], ""
        for name, data in stream:
            if name == "content_block_start":
                self.assertEqual(data["index"], len(blocks))
                blocks.append(dict(data["content_block"]))
                json_text = ""
            elif name == "content_block_delta":
                kind = data["delta"]["type"]
                if kind == "input_json_delta":
                    json_text += data["delta"]["partial_json"]
                else:
                    blocks[-1][kind.removesuffix("_delta")] += data["delta"][kind.removesuffix("_delta")]
            elif name == "content_block_stop" and blocks[-1]["type"] == "tool_use":
                blocks[-1]["input"] = json.loads(json_text)
        start, delta = stream[0][1]["message"]["usage"], stream[-2][1]
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            self.assertEqual(start[name], delta["usage"][name])
        prompt_tokens = start["input_tokens"] + start["cache_read_input_tokens"]
        return blocks, delta["delta"]["stop_reason"], prompt_tokens

    def test_conversation(self):
        blocks, reason, counted = self.turn([self.question()], **calling("Bash", {"command": ["ls", "-a"]}))
        self.assertEqual([block["type"] for block in blocks], ["thinking", "text", "tool_use"])
        self.assertEqual((blocks[0]["thinking"], blocks[1]["text"]), (REASONING, "Let me see."))
        self.assertEqual((blocks[2]["name"], blocks[2]["input"]), ("Bash", {"command": ["ls", "-a"]}))
        self.assertEqual(reason, "tool_use")
        body = {key: value for key, value in self.body([self.question()]).items() if key not in ("max_tokens", "temperature")}
        told = self.server.post("/v1/messages/count_tokens?beta=true", body, self.HEADERS)
        self.assertEqual(told.json, {"input_tokens": counted})
        result = {"type": "tool_result", "tool_use_id": blocks[2]["id"], "is_error": False, **self.CACHED,
                  "content": [{"type": "text", "text": "a.txt\n"}, {"type": "text", "text": "b.txt\n"}]}
        history = [self.question(), {"role": "assistant", "content": blocks},
                   {"role": "user", "content": [result, {"type": "text", "text": self.REMINDER}]}]
        messages = [{"role": "system", "content": "You are a coding agent. Help."},
                    {"role": "user", "content": self.REMINDER + "What is here?"},
                    {"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": "x", "type": "function", "function": {
                        "name": "Bash", "arguments": json.dumps(blocks[2]["input"])}}]},
                    {"role": "tool", "tool_call_id": "x", "content": "a.txt\nb.txt\n"},
                    {"role": "user", "content": self.REMINDER}]
        # Without thinking this template writes more into the prompt.
        seen = set()
        for thinking, enabled in (("enabled", True), ("adaptive", None), ("disabled", False)):
            blocks, reason, counted = self.turn(history, thinking={"type": thinking}, **{**FREE, "max_tokens": 16})
            variables = {} if enabled is None else {"chat_template_kwargs": {"enable_thinking": enabled}}
            content, reasoning, prompt_tokens = self.chat(messages, self.SHOWN, **variables)
            self.assertEqual("".join(block.get("text", "") for block in blocks), content)
            self.assertEqual("".join(block.get("thinking", "") for block in blocks), reasoning)
            self.assertEqual((counted, reason), (prompt_tokens, "max_tokens"))
            seen.add(prompt_tokens)
        self.assertEqual(len(seen), 2)

    def test_structured_answer(self):
        schema = {"type": "object", "properties": {"title": {"type": "string", "enum": ["a", "b"]}}, "required": ["title"],
                  "additionalProperties": False}
        held = {"type": "json_schema", "schema": schema}
        for fields in ({"output_config": {"effort": "low", "format": held}}, {"output_format": held}):
            body = {**self.body([self.question()]), "tools": [], "thinking": {"type": "disabled"}, **fields}
            answer = self.server.post(self.PATH, body, self.HEADERS)
            self.assertEqual(answer.status, 200, answer.body)
            text = "".join(block.get("text", "") for block in answer.json["content"])
            self.assertIn(json.loads(text)["title"], ("a", "b"))

    def test_what_would_change_the_answer_is_refused(self):
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
        shown = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [image]}]}
        for fields, param in (({"mcp_servers": [{"type": "url", "url": "http://localhost", "name": "x"}]}, "mcp_servers"),
                              ({"thinking": {"type": "always"}}, "thinking.type"),
                              ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
                              ({"messages": [self.question(), {"role": "assistant", "content": "{"}]}, "messages"),
                              ({"messages": [{"role": "user", "content": [image]}]}, "messages[0].content[0].type"),
                              ({"messages": [shown]}, "messages[0].content[0].content"),
                              ({"tool_choice": {"type": "tool", "name": "web_search"}}, "tool_choice")):
            self.refused(self.PATH, {**self.body([self.question()]), **fields}, param, self.HEADERS)
        counted = self.server.post("/v1/messages/count_tokens", {"messages": [self.question(),
                                                                              {"role": "assistant", "content": "{"}]})
        self.assertEqual(counted.status, 200, counted.body)


if __name__ == "__main__":
    unittest.main()
