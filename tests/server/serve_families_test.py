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
STRICT = {"type": "function", "function": {**TOOL["function"], "strict": True}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "word", "schema": TOOL["function"]["parameters"]}}
LLAMA3 = ("{{- bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
          "m['content'] + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}")
GEMMA4 = ("{{ bos_token }}{% for m in messages %}{{ '<|turn>' + m['role'] + '\\n' }}{% for call in m['tool_calls'] or [] %}"
          "{{ '<|tool_call>call:' + call['function']['name'] + '{' }}{% for key, value in call['function']['arguments'] | dictsort %}"
          "{{ key + ':<|\"|>' + value + '<|\"|>' }}{% endfor %}{{ '}<tool_call|>' }}{% endfor %}{{ m['content'] }}<turn|>\n{% endfor %}"
          "{{ '<|turn>model\\n' }}{% if not enable_thinking | default(true) %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}")
PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
WRITTEN = {"llama3": LLAMA3, "gemma4": GEMMA4, "plain": PLAIN}
NO_THINKING = {"enable_thinking": False}
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
    """A request whose answer is this text, reasoning and calls included."""
    return chat("look", grammar="root ::= " + json.dumps(text, ensure_ascii=False), grammar_scope="text", max_tokens=600,
                **fields)


def liking(characters, **fields):
    """A request whose answer has these characters, the last one before all, wherever they are allowed."""
    bias = {str(ord(character)): 50 + 50 * i / len(characters) for i, character in enumerate(characters, 1)}
    return chat("look", logit_bias=bias, **fields)


def calls_of(message):
    return [(call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()]


class Families(serve_harness.Tool):
    def start(self, family, markers=()):
        template = WRITTEN.get(family) or (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
        model = str(self.path / f"{family}.gguf")
        write_tiny_model(model, template=template, markers=markers)
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
        self.assertEqual(calls_of(message), calls)
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
        two = saying(before + call + "\n" + call + "\nDone.", tools=[TOOL])
        self.check(server, two, "Done.", "hm" if opened else "", wanted * 2, "tool_calls")
        self.check(server, {**two, "parallel_tool_calls": False}, "", "hm" if opened else "", wanted, "tool_calls")
        forced = chat("look", max_tokens=400, tools=[TOOL], tool_choice="required", temperature=1, seed=4)
        answer = server.post("/v1/chat/completions", forced)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.json["choices"][0]["finish_reason"], "tool_calls")
        made = answer.json["choices"][0]["message"]
        if opened or not reasons:
            self.assertEqual("reasoning_content" in made, opened)
        ((name, arguments),) = calls_of(made)
        self.assertEqual((name, list(arguments)), ("look_up", ["word"]))
        self.assertIn(arguments["word"], ("cat", "dog"))

    def answer(self, server, body):
        """The one choice of a whole answer; drafts change nothing."""
        drafted = server.post("/v1/chat/completions", body)
        self.assertEqual(drafted.status, 200, drafted.body)
        plain = server.post("/v1/chat/completions", {**body, "speculation": {"policy": "off"}}).json["choices"][0]
        (choice,) = drafted.json["choices"]
        for key in ("content", "reasoning_content"):
            self.assertEqual(choice["message"].get(key), plain["message"].get(key))
        self.assertEqual(calls_of(choice["message"]), calls_of(plain["message"]))
        self.assertEqual(choice["finish_reason"], plain["finish_reason"])
        return choice

    def check_word(self, text):
        value = json.loads(text)
        self.assertEqual(list(value), ["word"])
        self.assertIn(value["word"], ("cat", "dog"))

    def check_error(self, server, body, param, *words):
        answer = server.post("/v1/chat/completions", body)
        self.assertEqual(answer.status, 400, answer.body)
        self.assertEqual(answer.json["error"]["param"], param)
        for word in words:
            self.assertIn(word, answer.json["error"]["message"])

    def test_formats_hold_what_is_behind_the_reasoning(self):
        for family, fields in (("qwq-32b", {"enable_thinking": True}), ("deepseek-r1-distill-qwen", {"enable_thinking": True}),
                               ("deepseek-v3.1", {"thinking": True}), ("deepseek-v4", {"thinking": True}), ("qwen3.5-4b", {})):
            server = self.start(family)
            asked = {"chat_template_kwargs": fields, "max_tokens": 150, "temperature": 1, "seed": 3}
            with self.subTest(family):
                for held in ({"response_format": FORMAT}, {"response_format": {"type": "json_object"}},
                             {"grammar": 'root ::= "yes" | "no"'}):
                    body = chat("look", **asked) | held
                    choice = self.answer(server, body)
                    self.assertEqual(choice["finish_reason"], "stop")
                    content, reasoning = choice["message"]["content"], choice["message"]["reasoning_content"]
                    self.assertTrue(reasoning)
                    self.assertEqual(self.streamed(server, body)[:2], (content, reasoning))
                    if "grammar" in held:
                        self.assertIn(content, ("yes", "no"))
                    elif held["response_format"] is FORMAT:
                        self.check_word(content)
                    else:
                        self.assertIsInstance(json.loads(content), dict)
                # Texts to continue have no reasoning.
                raw = server.post("/v1/completions", {"prompt": "<think>", "grammar": 'root ::= "abc"', "temperature": 0})
                self.assertEqual(raw.json["choices"][0]["text"], "abc")

    def test_reasoning_before_formats_where_the_model_may_open_it(self):
        for family in ("qwen3-0.6b", "gemma4"):
            server = self.start(family)
            with self.subTest(family):
                asked = {"max_tokens": 120, "response_format": FORMAT}
                thought = self.answer(server, liking("<", **asked))
                self.assertIn("<<<", thought["message"]["reasoning_content"])
                self.check_word(thought["message"]["content"])
                for body in (liking("{", **asked), liking("<", chat_template_kwargs=NO_THINKING, **asked)):
                    direct = self.answer(server, body)
                    self.assertNotIn("reasoning_content", direct["message"])
                    self.check_word(direct["message"]["content"])
                forced = self.answer(server, liking("<", max_tokens=200, tools=[TOOL], tool_choice="required",
                                                    chat_template_kwargs=NO_THINKING))
                self.assertNotIn("reasoning_content", forced["message"])
                self.assertEqual(len(calls_of(forced["message"])), 1)

    def test_answers_in_a_format_may_be_calls(self):
        for family, _, _, _ in FAMILIES:
            server = self.start(family)
            is_json = family in ("llama3", "gemma-3-like")  # "name" and "word" tell calls and content apart
            asked = {"max_tokens": 400, "response_format": FORMAT, "tools": [TOOL], "chat_template_kwargs": NO_THINKING}
            with self.subTest(family):
                content = self.answer(server, liking('"w' if is_json else "{", **asked))
                self.assertEqual(content["finish_reason"], "stop")
                self.assertEqual(calls_of(content["message"]), [])
                self.check_word(content["message"]["content"])
                for parallel in (False, True):
                    called = self.answer(server, liking('"n' if is_json else "<", parallel_tool_calls=parallel, **asked))
                    self.assertIsNone(called["message"]["content"])
                    made = calls_of(called["message"])
                    self.assertGreaterEqual(len(made), 1)
                    for name, arguments in made:
                        self.assertEqual(name, "look_up")
                        self.check_word(json.dumps(arguments))
                    if not parallel:
                        self.assertEqual(len(made), 1)
                        self.assertEqual(called["finish_reason"], "tool_calls")

    def test_formats_exclude_tools_where_calls_are_not_known(self):
        server = self.start("plain")
        body = chat("look", max_tokens=60, response_format=FORMAT, tools=[TOOL])
        self.check_error(server, body, "response_format", "response_format", "tools")
        self.check_word(self.answer(server, {**body, "tool_choice": "none"})["message"]["content"])
        del body["response_format"]
        self.assertEqual(server.post("/v1/chat/completions", body).status, 200)

    def test_calls_of_strict_tools_keep_to_the_schema(self):
        # The mark that opens a call is a control token here, which the model likes.
        for family, marker in (("qwen2.5-coder-0.5b-instruct", "<tool_call>"), ("qwen3-0.6b", "<tool_call>"),
                               ("deepseek-v3.1", "<\uff5ctool\u2581calls\u2581begin\uff5c>"), ("qwen3.5-4b", "<tool_call>"),
                               ("gemma4", "<|tool_call>"), ("llama3", "{")):
            server = self.start(family, () if marker == "{" else (marker,))
            bias = {str(ord(marker)) if marker == "{" else "260": 100}
            body = chat("look", max_tokens=400, logit_bias=bias, tools=[STRICT], chat_template_kwargs=NO_THINKING)
            with self.subTest(family):
                several = self.answer(server, body)
                made = calls_of(several["message"])
                self.assertGreaterEqual(len(made), 1 if marker == "{" else 2)
                for name, arguments in made:
                    self.assertEqual(name, "look_up")
                    self.check_word(json.dumps(arguments))
                one = server.post("/v1/chat/completions", {**body, "parallel_tool_calls": False}).json
                self.assertEqual(len(calls_of(one["choices"][0]["message"])), 1)
                self.assertEqual(one["choices"][0]["finish_reason"], "tool_calls")
                self.assertLess(one["usage"]["completion_tokens"], 200)  # the text ends behind the call
                loose = self.answer(server, {**body, "tools": [TOOL]})
                self.assertEqual(calls_of(loose["message"]), [])

    def test_strict_tools_that_cannot_be_held(self):
        odd = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", "oddly": 1}}}
        strict = {"type": "function", "function": {**odd["function"], "strict": True}}
        server = self.start("qwen3-0.6b")
        for fields in ({}, {"response_format": FORMAT}):
            body = chat("look", max_tokens=20, **fields)
            self.check_error(server, {**body, "tools": [TOOL, strict]}, "tools[1].function.parameters", "'odd'", "oddly")
            self.assertEqual(server.post("/v1/chat/completions", {**body, "tools": [odd]}).status, 200)
        # Gemma 2 and 3 write calls like any code: only those that must come are held.
        server = self.start("gemma-3-like")
        free = self.answer(server, liking("{", max_tokens=20, tools=[STRICT]))
        self.assertTrue(free["message"]["content"].startswith("{{"))

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
