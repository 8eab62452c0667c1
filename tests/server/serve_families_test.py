#!/usr/bin/env python3
"""`dspark serve` with the chat templates of real models: tool calls and reasoning in each family's own notation, over
HTTP. The model is the tiny one; grammars make it say what a model of the family would."""

import json
import re
import unittest

import serve_harness
from serve_harness import ROOT, Server, chat, chat_text, events
from tiny_drafter import write_tiny_drafter
from tiny_model import write_tiny_model

TEMPLATES = ROOT / "tests" / "data" / "chat"
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks a word up.", "parameters": {
    "type": "object", "properties": {"word": {"type": "string", "enum": ["cat", "dog"]}}, "required": ["word"],
    "additionalProperties": False}}}
LLAMA3 = ("{{- bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
          "m['content'] + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}")
GEMMA4 = ("{{ bos_token }}{% for m in messages %}{{ '<|turn>' + m['role'] + '\\n' }}{% for call in m['tool_calls'] or [] %}"
          "{{ '<|tool_call>call:' + call['function']['name'] + '{' }}{% for key, value in call['function']['arguments'] | dictsort %}"
          "{{ key + ':<|\"|>' + value + '<|\"|>' }}{% endfor %}{{ '}<tool_call|>' }}{% endfor %}{{ m['content'] }}<turn|>\n{% endfor %}"
          "{{ '<|turn>model\\n' }}{% if not enable_thinking | default(true) %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}")
WRITTEN = {"llama3": LLAMA3, "gemma4": GEMMA4}
DSML = "\uff5cDSML\uff5c"
# template, notation of calls, reasoning, what a call of look_up({"word": "cat"}) looks like
FAMILIES = (
    ("qwen2.5-coder-0.5b-instruct", "hermes", False, '<tool_call>\n{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>'),
    ("qwen3-0.6b", "hermes", True, '<tool_call>\n{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>'),
    ("qwq-32b", "hermes", True, '<tool_call>\n{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>'),
    ("smollm2-135m-instruct", "hermes", False, '<tool_call>\n{"name": "look_up", "arguments": {"word": "cat"}}\n</tool_call>'),
    ("llama3", "llama3", False, '{"name": "look_up", "parameters": {"word": "cat"}}'),
    ("gemma-3-like", "gemma", False, '```tool_code\nlook_up(word="cat")\n```'),
    ("deepseek-v3.1", "deepseek", True, "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>look_up"
     '<\uff5ctool\u2581sep\uff5c>{"word": "cat"}<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>'),
    ("deepseek-r1-distill-qwen", "deepseek-r1", True, "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin"
     "\uff5c>function<\uff5ctool\u2581sep\uff5c>look_up\n```json\n" '{"word": "cat"}' "\n```<\uff5ctool\u2581call\u2581end\uff5c>"
     "<\uff5ctool\u2581calls\u2581end\uff5c>"),
    ("deepseek-v3.2", "deepseek-v3.2", True, f'<{DSML}function_calls>\n<{DSML}invoke name="look_up">\n<{DSML}parameter name="word" '
     f'string="true">cat</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}function_calls>'),
    ("deepseek-v4", "deepseek-v4", True, f'<{DSML}tool_calls>\n<{DSML}invoke name="look_up">\n<{DSML}parameter name="word" '
     f'string="true">cat</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}tool_calls>'),
    ("qwen3.5-4b", "qwen-xml", True, "<tool_call>\n<function=look_up>\n<parameter=word>\ncat\n</parameter>\n</function>\n</tool_call>"),
    ("gemma4", "gemma4", True, '<|tool_call>call:look_up{word:<|"|>cat<|"|>}<tool_call|>'),
)


def saying(text, **fields):
    """A request whose answer is this text."""
    return chat("look", grammar="root ::= " + json.dumps(text, ensure_ascii=False), max_tokens=500, **fields)


class Families(serve_harness.Tool):
    def start(self, family):
        template = WRITTEN.get(family) or (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
        model = str(self.path / f"{family}.gguf")
        write_tiny_model(model, template=template)
        server = Server("-m", model, "-c", "8192", "-d", "ngram", "--spec", "fixed:4")
        self.addCleanup(server.stop)
        return server

    def streamed(self, server, body):
        """The parts of a streamed answer, put together; traced chunks must be the sum of their tokens."""
        connection, response = server.open_stream("/v1/chat/completions", {**body, "dspark_trace": True})
        chunks = [chunk for chunk in events(response) if chunk != "[DONE]" and chunk["choices"]]
        connection.close()
        calls, reasoning = [], ""
        for chunk in chunks:
            delta = chunk["choices"][0]["delta"]
            reasoning += delta.get("reasoning_content") or ""
            shown = (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            self.assertEqual("".join(token["text"] for token in chunk["dspark"]["tokens"]), shown, chunk)
            for piece in delta.get("tool_calls") or ():
                if "id" in piece:
                    calls.append([piece["function"]["name"], ""])
                calls[piece["index"]][1] += piece["function"].get("arguments") or ""
        return chat_text(chunks), reasoning, calls, chunks[-1]["choices"][0]["finish_reason"]

    def check(self, server, body, content, reasoning, calls, finish):
        whole = server.post("/v1/chat/completions", {**body, "dspark_trace": True})
        self.assertEqual(whole.status, 200, whole.body)
        choice = whole.json["choices"][0]
        message = choice["message"]
        self.assertEqual(message["content"] or "", content)
        self.assertEqual(message.get("reasoning_content") or "", reasoning)
        got = [(call["function"]["name"], json.loads(call["function"]["arguments"]))
               for call in message.get("tool_calls") or ()]
        self.assertEqual(got, calls)
        self.assertEqual(choice["finish_reason"], finish)
        tokens = whole.json["dspark"]["choices"][0]["tokens"]
        self.assertEqual("".join(token["text"] for token in tokens), reasoning + content)
        in_pieces = self.streamed(server, body)
        self.assertEqual(in_pieces[:2], (content, reasoning))
        self.assertEqual([(name, json.loads(arguments)) for name, arguments in in_pieces[2]], calls)
        self.assertEqual(in_pieces[3], finish)

    def check_family(self, family, notation, reasons, call):
        server = self.start(family)
        props = server.get("/props").json
        self.assertEqual((props["tool_format"], props["has_reasoning"]), (notation, reasons))
        wanted = [("look_up", {"word": "cat"})]
        # Whether the prompt already opened the reasoning: then the answer is reasoning until its end.
        opened = bool(server.post("/v1/chat/completions", saying("abc")).json["choices"][0]["message"].get("reasoning_content"))
        think, end = ("<|channel>thought\n", "<channel|>") if family == "gemma4" else ("<think>\n", "</think>\n\n")
        begin = "" if opened else think
        self.assertLessEqual(opened, reasons)
        before = "hm\n" + end if opened else ""
        self.check(server, saying(before + "Some <b> text."), "Some <b> text.", "hm" if opened else "", [], "stop")
        self.check(server, saying(before + call, tools=[TOOL]), "", "hm" if opened else "", wanted, "tool_calls")
        # Without tools in the request a call is text like any other.
        whole = server.post("/v1/chat/completions", saying(before + call)).json["choices"][0]["message"]
        self.assertEqual((whole["content"], whole.get("tool_calls")), (call, None))
        if reasons:
            self.check(server, saying(begin + "It is < blue,\n so.\n" + end + "Blue."), "Blue.", "It is < blue,\n so.", [],
                       "stop")
            self.check(server, saying(begin + "Look.\n" + end + call, tools=[TOOL]), "", "Look.", wanted, "tool_calls")
        forced = chat("look", max_tokens=300, tools=[TOOL], tool_choice="required", temperature=1, seed=4)
        answer = server.post("/v1/chat/completions", forced)
        self.assertEqual(answer.status, 200, answer.body)
        made = answer.json["choices"][0]["message"]
        if answer.json["choices"][0]["finish_reason"] == "length":
            self.assertTrue(opened)  # reasoning is free, and this model finds no end
        else:
            self.assertEqual(made["tool_calls"][0]["function"]["name"], "look_up")
            self.assertIn(json.loads(made["tool_calls"][0]["function"]["arguments"])["word"], ("cat", "dog"))

    def test_result_of_a_call_goes_back(self):
        for family in ("qwen3-0.6b", "deepseek-v3.1", "deepseek-v3.2", "deepseek-v4", "qwen3.5-4b", "gemma4"):
            server = self.start(family)
            messages = [{"role": "user", "content": "What is a cat?"},
                        {"role": "assistant", "content": "", "tool_calls": [
                            {"id": "call_1", "type": "function",
                             "function": {"name": "look_up", "arguments": '{"word": "cat"}'}},
                            {"id": "call_2", "type": "function", "function": {"name": "look_up", "arguments": ""}}]},
                        {"role": "tool", "tool_call_id": "call_1", "content": "an animal"},
                        {"role": "tool", "tool_call_id": "call_2", "content": "which word?"}]
            body = {**saying("ok"), "messages": messages, "tools": [TOOL]}
            with self.subTest(family):
                self.assertEqual(server.post("/v1/chat/completions", body).status, 200)


for _family in FAMILIES:
    setattr(Families, "test_" + re.sub(r"\W", "_", _family[0]), lambda self, f=_family: self.check_family(*f))


class LearnedDrafter(serve_harness.Tool):
    def test_traces_tell_what_the_drafter_thought(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        server = Server("-m", self.chat_model, "-c", "2048", "-d", drafter, "--no-hybrid", "--spec", "fixed:4")
        self.addCleanup(server.stop)
        body = chat("abcabc", max_tokens=400, ignore_eos=True, temperature=1, seed=1)
        plain = server.post("/v1/chat/completions", body).json
        traced = server.post("/v1/chat/completions", {**body, "dspark_trace": True}).json
        self.assertEqual(plain["choices"], traced["choices"])  # looking changes nothing
        self.assertEqual(plain["usage"]["speculation"], traced["usage"]["speculation"])
        tokens = traced["dspark"]["choices"][0]["tokens"]
        accepted = [token for token in tokens if token["origin"] == "accepted"]
        self.assertEqual(len(accepted), traced["usage"]["speculation"]["accepted"])
        self.assertGreater(len(accepted), 0)
        for token in tokens:
            self.assertEqual("draft_probability" in token, token["origin"] == "accepted", token)
        for token in accepted:
            self.assertTrue(0 < token["draft_probability"] <= 1, token)
            self.assertTrue(0 <= token["confidence"] <= 1, token)
        # The drafter's probability is not the model's.
        self.assertTrue(any(abs(token["draft_probability"] - token["target_probability"]) > 0.01 for token in accepted))

    def test_optional_drafters(self):
        misfit = write_tiny_drafter(self.path / "misfit", vocab=300)
        for drafter, words in ((misfit, "300"), ("no-such-drafter.gguf", "no-such-drafter.gguf")):
            self.assertIn(words, self.fail_with(1, "serve", "-m", self.chat_model, "-d", drafter))
            server = Server("-m", f"tiny={self.chat_model}", "-d", drafter, "--drafter-optional", "--spec", "fixed:2")
            self.addCleanup(server.stop)
            props = server.get("/props").json
            self.assertIsNone(props["drafter"])
            self.assertIn(words, props["drafter_error"])
            self.assertIn("model tiny runs without a drafter", server.log())
            self.assertEqual(server.post("/v1/chat/completions", chat("x", max_tokens=2)).status, 200)
        self.assertIn("--spec", self.fail_with(1, "serve", "-m", self.chat_model, "-d", misfit, "--drafter-optional", "--spec", "x"))


if __name__ == "__main__":
    unittest.main()
