"""The page in a real browser: answers, their tokens, races, colours, phones; against a server that says what the
test wants."""

import re
import time
import unittest

import page_case
from fake_server import PAGE, STORY, THOUGHTS
from page_case import FakeCase, line_of

SAID = "The sky is <b> bl\u00fce."
THOUGHT = "".join(text for text, _, _ in THOUGHTS)
# The contrast of an element's text, by WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
CONTRAST = """
const numbers = c => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
const on = (top, below) => below.map((v, i) => i < 3 ? v + (top[i] - v) * top[3] : 1);
const ground = n => n ? on(numbers(getComputedStyle(n).backgroundColor), ground(n.parentElement)) : [255, 255, 255, 1];
const light = v => v.slice(0, 3).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const node = document.querySelector(arguments[0]), behind = ground(node);
const a = light(on(numbers(getComputedStyle(node).color), behind)), b = light(behind);
return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);"""
FOCUSED = """const n = document.activeElement, b = n.getBoundingClientRect();
return {text: n.textContent, id: n.id, is_token: n.classList.contains('t'), described: n.getAttribute('aria-describedby'),
        middle: (b.left + b.right) / 2, top: b.top, ring: getComputedStyle(n).outlineStyle};"""


class Files(unittest.TestCase):
    def test_nothing_from_outside(self):
        for file in PAGE.iterdir():
            if file.suffix in (".html", ".css", ".js"):
                found = re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}[^\s'\"]*", file.read_text())
                self.assertEqual([u for u in found if "www.w3.org" not in u], [], file.name)

    def test_every_file_is_used(self):
        index = (PAGE / "index.html").read_text()
        for file in PAGE.glob("*.[jc]s*"):
            self.assertIn(f'"page/{file.name}"', index)


class Answers(FakeCase):
    def test_an_answer_is_shaded_and_counted(self):
        self.start()
        self.ask()
        line = line_of(self.facts())
        # The server's own counts, as they came in usage.
        self.assertEqual({key: line[key] for key in ("tokens", "drafted", "verified", "trimmed", "accepted")},
                         {"tokens": 6, "drafted": 14, "verified": 6, "trimmed": 8, "accepted": 3})
        self.assertEqual(line["tokens per round"], 2.5)
        self.assertGreater(line["tokens/s"], 0)
        self.assertEqual(self.browser.text(".message.assistant .body"), SAID)
        classes = self.browser.run("return [...document.querySelectorAll('.message.assistant .t')].map(n => n.className)")
        self.assertEqual(classes, ["t plain", "t accepted d1", "t accepted d2", "t accepted d4", "t correction", "t bonus"])
        self.browser.hover(".message.assistant .t.d2")
        tip = self.browser.text("#tip")
        for part in ("accepted draft", "place 2", "draft probability 0.50", "confidence 0.75", "the model's probability 0.90"):
            self.assertIn(part, tip)
        self.browser.hover(".message.assistant .t.correction")  # what is not known is not shown
        self.assertEqual(self.browser.text("#tip"), "correction: the draft was another")
        self.assertEqual(self.browser.errors(), [])

    def test_speed_is_that_of_the_writing(self):
        self.start()
        seen = {"text": "x", "n_tokens": 40, "first_n": 1, "began": 0, "first_at": 1000, "last_at": 3000}
        for changes, rate in (({"usage": {"completion_tokens": 41}}, 20),  # 40 tokens in the 2 s after the first
                              ({"n_tokens": 7, "first_n": 3}, 2),  # without counts of the server: those that were seen
                              ({"first_at": 3000, "first_n": 40}, 40 / 3),  # all at once: since the question
                              ({"n_tokens": 0, "first_n": 0, "first_at": 0, "last_at": 0}, 0)):
            shown = self.browser.run("return answers.rate(arguments[0])", {"usage": None, **seen, **changes})
            self.assertAlmostEqual(shown, rate, msg=changes)

    def test_the_newest_text_is_in_sight_but_readers_stay(self):
        self.browser.resize(1200, 500)
        self.addCleanup(self.browser.resize, 1200, 900)
        self.server.mode = "story"
        self.start()
        for nth in (1, 2):
            self.ask()
            self.facts(nth)
        self.browser.wait("the line of the answer in sight", "const n = document.querySelector('#log');"
                          "return n.scrollTop > 0 && n.scrollHeight - n.scrollTop - n.clientHeight < 2")
        self.ask()
        self.browser.wait("some text", "return document.querySelectorAll('.message.assistant:last-child .t').length > 5")
        self.browser.run("document.querySelector('#log').scrollTop = 10")
        self.facts(3)
        time.sleep(0.1)  # frames that might scroll
        self.assertEqual(self.browser.run("return document.querySelector('#log').scrollTop"), 10)

    def test_the_request_carries_conversation_and_settings(self):
        self.start()
        self.browser.click("#toggle-settings")
        self.settle(seed="7", policy="fixed:3", system="Be brief.")
        self.ask("One")
        self.facts()
        self.ask("Two")
        self.facts(2)
        self.browser.wait("the end", "return document.querySelector('#stop').disabled")
        sent = self.server.requests[-1]
        self.assertEqual([m["role"] for m in sent["messages"]], ["system", "user", "assistant", "user"])
        self.assertEqual(sent["messages"][2]["content"], SAID)
        self.assertEqual((sent["seed"], sent["speculation"], sent["stream"]), (7, {"policy": "fixed:3"}, True))
        self.start()  # settings outlive a reload
        self.assertEqual(self.browser.run("return document.querySelector('#seed').value"), "7")

    def test_reasoning_stands_apart_and_is_not_sent_back(self):
        self.server.mode = "think"
        self.start()
        self.ask("One")
        line = line_of(self.facts())
        self.assertEqual(line["tokens"], 11)  # reasoning and its tag are tokens too
        self.assertEqual(self.browser.text(".message.assistant .thoughts"), THOUGHT)
        self.assertEqual(self.browser.text(".message.assistant .body"), SAID)
        kinds = "return [...document.querySelectorAll('.message.assistant ' + arguments[0] + ' .t')].map(n => n.className)"
        self.assertEqual(self.browser.run(kinds, ".thoughts"), ["t plain", "t accepted d1", "t accepted d2", "t correction"])
        self.assertEqual(self.browser.run(kinds, ".body"),
                         ["t plain", "t accepted d1", "t accepted d2", "t accepted d4", "t correction", "t bonus"])
        self.assertEqual(self.browser.run("return [...document.querySelector('.message.assistant').children].map(n => n.className)"),
                         ["who", "reasoning", "body", "facts"])
        self.assertEqual(self.browser.run("return document.querySelectorAll('[aria-busy]').length"), 0)
        self.server.mode = "answer"
        self.ask("Two")
        self.facts(2)
        self.assertEqual(self.server.requests[-1]["messages"], [
            {"role": "user", "content": "One"}, {"role": "assistant", "content": SAID}, {"role": "user", "content": "Two"}])
        self.assertEqual(self.browser.run("return document.querySelectorAll('.reasoning').length"), 1)  # none without any
        self.assertEqual(self.browser.errors(), [])

    def test_an_answer_that_is_only_reasoning_is_an_empty_one(self):
        self.server.mode = "muse"
        self.start()
        self.ask("One")
        self.assertEqual(line_of(self.facts())["tokens"], 4)
        self.assertEqual(self.browser.text(".message.assistant .thoughts"), THOUGHT)
        self.assertEqual(self.browser.text(".message.assistant .body"), "")
        self.ask("Two")
        self.facts(2)
        self.assertEqual(self.server.requests[-1]["messages"], [
            {"role": "user", "content": "One"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "Two"}])

    def test_chunks_with_both_are_parted(self):
        self.start()
        for told, spans in (([{"text": "so", "origin": "plain"}, {"text": ".Yes", "origin": "accepted", "draft_idx": 0}],
                             [["so", "."], ["Yes"]]),  # one token has the end of one and the beginning of the other
                            ([{"text": "something else", "origin": "plain"}], [[], []]),
                            (None, [[], []])):
            chunk = {"choices": [{"delta": {"reasoning_content": "so.", "content": "Yes"}}]}
            if told:
                chunk["dspark"] = {"tokens": told}
            shown = self.browser.run("const box = document.createElement('div'), body = document.createElement('div'); box.append(body);"
                                     "const {thought, said, n} = answers.add_chunk(arguments[0], body), parts = [reasoning.find(body), body];"
                                     "return {told: [thought, said, n], texts: parts.map(p => p.textContent),"
                                     "spans: parts.map(p => [...p.querySelectorAll('.t')].map(t => t.textContent))}", chunk)
            self.assertEqual(shown, {"told": ["so.", "Yes", len(told) if told else 1], "texts": ["so.", "Yes"], "spans": spans})

    def stop_with(self, stop):
        self.server.mode = "slow"
        self.start()
        self.assertTrue(self.browser.run("return document.querySelector('#stop').disabled"))
        self.ask()
        self.browser.wait("some text", "const b = document.querySelector('.message.assistant .body');"
                          "return b && b.textContent.length > 20")
        stop()
        line = line_of(self.facts())
        self.assertIn("stopped", line)
        self.assertEqual(line["tokens"], self.browser.run("return document.querySelectorAll('.message.assistant .t').length"))
        self.assertTrue(self.server.hung_up.wait(20))
        text = self.browser.text(".message.assistant .body")
        self.assertTrue(text.startswith(SAID), text)
        self.assertFalse(self.browser.run("return document.querySelector('#send').disabled"))
        self.assertTrue(self.browser.run("return document.querySelector('#stop').disabled"))
        self.server.mode = "answer"  # the text stays, and the next answer comes
        self.ask("Go on")
        self.facts(2)
        self.assertEqual(self.browser.text(".message.assistant .body"), text)
        self.assertEqual(self.server.requests[-1]["messages"][1], {"role": "assistant", "content": text})

    def test_escape_hangs_up_and_keeps_the_text(self):
        self.stop_with(lambda: self.browser.key("escape"))

    def test_the_stop_button_hangs_up_and_keeps_the_text(self):
        self.stop_with(lambda: self.browser.click("#stop"))

    def test_clear_begins_anew(self):
        self.server.mode = "slow"
        self.start()
        self.ask()
        self.browser.wait("some text", "return document.querySelectorAll('.message.assistant .t').length > 2")
        self.browser.click("#clear")
        self.assertTrue(self.server.hung_up.wait(20))
        self.server.mode = "answer"
        self.browser.wait("the end", "return document.querySelector('#stop').disabled")
        self.ask("Two")
        self.facts()
        self.assertEqual(self.server.requests[-1]["messages"], [{"role": "user", "content": "Two"}])


class Keyboard(FakeCase):
    def focused(self):
        return self.browser.run(FOCUSED)

    def press(self, *keys):
        self.browser.key(*keys)
        return self.focused()

    def test_facts_of_tokens_by_keyboard(self):
        self.server.mode = "story"
        self.start()
        self.ask()
        self.facts()
        self.assertEqual(self.focused()["id"], "prompt")
        first = self.press("shift", "tab")  # from the prompt back into the newest answer
        self.assertEqual((first["text"], first["is_token"], first["described"]), (STORY[0], True, "tip"))
        self.assertNotEqual(first["ring"], "none")
        self.assertTrue(self.browser.visible(".message.assistant .body[role=group][aria-label]"))
        self.assertEqual(self.browser.run("return document.querySelector('#tip').getAttribute('role')"), "tooltip")
        self.assertEqual(self.browser.text("#tip"), "plain")

        second = self.press("right")
        self.assertEqual((second["text"], second["described"]), (" " + STORY[1], "tip"))
        self.assertIn("place 2 of its block\ndraft probability 0.50\nconfidence 0.75", self.browser.text("#tip"))
        described = "return document.querySelectorAll('[aria-describedby=tip]').length"
        self.assertEqual(self.browser.run(described), 1)
        self.assertEqual(self.press("left")["text"], STORY[0])
        self.assertEqual(self.press("left")["text"], STORY[0])  # the edge
        last = self.press("end")
        self.assertEqual(last["text"], " " + STORY[-1])
        above = self.press("up")
        self.assertLess(above["top"], last["top"])
        self.assertEqual(self.press("home")["text"], STORY[0])
        for _ in range(8):
            eighth = self.press("right")
        below = self.press("down")
        self.assertGreater(below["top"], eighth["top"])
        self.assertLess(abs(below["middle"] - eighth["middle"]), 60)  # the nearest, not the first of the line
        self.assertEqual(self.press("up")["top"], eighth["top"])

        # One stop of the Tab key for each answer: the token that was looked at last.
        here = self.focused()["text"]
        self.assertEqual(self.browser.run("return document.querySelectorAll('.message.assistant .t[tabindex=\"0\"]').length"), 1)
        self.assertEqual(self.press("tab")["id"], "prompt")
        self.assertFalse(self.browser.visible("#tip"))
        self.assertEqual(self.browser.run(described), 0)
        self.assertEqual(self.press("shift", "tab")["text"], here)

        # A pointer that passes over something else does not take the facts away; Escape does.
        self.browser.hover(".message.assistant .t.bonus")
        self.assertIn("bonus", self.browser.text("#tip"))
        self.browser.hover("h1")
        self.assertTrue(self.browser.visible("#tip"))
        self.assertIn("accepted draft", self.browser.text("#tip"))
        self.press("escape")
        self.assertFalse(self.browser.visible("#tip"))
        self.assertEqual(self.browser.errors(), [])

    def test_each_answer_is_one_stop(self):
        self.start()
        for nth, question in enumerate(("One", "Two"), 1):
            self.ask(question)
            self.facts(nth)
        stops = [self.press("shift", "tab") for _ in range(2)]
        self.assertEqual([stop["text"] for stop in stops], ["The", "The"])
        self.assertGreater(stops[0]["top"], stops[1]["top"])


    def test_reasoning_opens_and_closes_by_keyboard(self):
        self.server.mode = "think"
        self.start()
        self.ask()
        self.facts()
        is_open = "return [...document.querySelectorAll('.reasoning')].map(n => n.open)"
        height = "return document.querySelector('.reasoning').getBoundingClientRect().height"
        self.assertEqual(self.browser.run(is_open), [True])
        opened = self.browser.run(height)
        self.assertTrue(self.browser.visible(".thoughts[role=group][aria-label^=Reasoning]"))
        self.assertTrue(self.browser.visible(".message.assistant .body[role=group][aria-label^=Answer]"))
        # The answer, its reasoning, the heading of that: one stop each.
        stops = [self.press("shift", "tab") for _ in range(3)]
        self.assertEqual([stop["text"] for stop in stops], ["The", "Blue", "Reasoning"])
        self.assertNotEqual(stops[2]["ring"], "none")
        self.press("tab")
        self.assertEqual(self.press("end")["text"], "?")  # keys stay in the text that they are in
        self.assertEqual(self.press("right")["text"], "?")
        self.press("shift", "tab")
        self.press("enter")
        self.assertEqual(self.browser.run(is_open), [False])
        self.assertLess(self.browser.run(height), opened - 10)
        self.assertEqual(self.press("tab")["text"], "The")  # what is closed is no stop
        self.ask("Again")  # the next one is as this one was left
        self.facts(2)
        self.assertEqual(self.browser.run(is_open), [False, False])
        self.assertEqual([self.press("shift", "tab")["text"] for _ in range(2)], ["The", "Reasoning"])
        self.press("enter")
        self.assertEqual(self.browser.run(is_open), [False, True])
        self.assertEqual(self.browser.errors(), [])


class Race(FakeCase):
    def test_equal_texts(self):
        self.start()
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("texts identical"), verdict)
        self.assertEqual([r.get("speculation") for r in self.server.requests], [None, {"policy": "off"}])
        self.assertEqual(self.browser.text("#race-without"), SAID)
        for lane in ("with", "without"):
            self.assertRegex(self.browser.text(f"#race-{lane}-speed"), r"^\d+(\.\d+)? tokens/s$")
        self.assertEqual(self.browser.run("return document.querySelectorAll('.differs').length"), 0)

    def test_texts_that_differ_are_loud(self):
        self.server.without = ["The", " sky", " was", " <b>", " bl\u00fce", "."]
        self.start()
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("TEXTS DIFFER from character 9 on"), verdict)
        for part in ("\u201cis <b> bl\u00fce.\u201d with speculation", "\u201cwas <b> bl\u00fce.\u201d without", "fault"):
            self.assertIn(part, verdict)
        self.assertNotIn("identical", verdict)
        # An alert on a ground of its own, in sight; and the token where it begins, in both texts.
        look = self.browser.run("const n = document.querySelector('#race-verdict'), b = n.getBoundingClientRect(),"
                                "r = document.querySelector('#race').getBoundingClientRect();"
                                "return [n.getAttribute('role'), b.top >= r.top && b.bottom <= r.bottom && b.bottom <= innerHeight]")
        self.assertEqual(look, ["alert", True])
        self.assertEqual(self.colour("#race-verdict", "backgroundColor"), self.browser.run(
            "const n = document.createElement('p'); n.style.color = getComputedStyle(document.documentElement)"
            ".getPropertyValue('--warn'); document.body.append(n); const c = getComputedStyle(n).color; n.remove(); return c"))
        self.assertGreater(self.browser.run(CONTRAST, "#race-verdict"), 4.5)
        self.assertEqual(self.browser.run("return [...document.querySelectorAll('.differs')].map(n => [n.parentNode.id, n.textContent])"),
                         [["race-with", " is"], ["race-without", " was"]])
        for lane in ("with", "without"):
            self.assertEqual(self.colour(f"#race-{lane} .differs", "backgroundColor"), self.colour("#race-verdict", "backgroundColor"))
        self.picture("race-differs")
        self.server.without = None  # the next race is judged anew
        self.assertTrue(self.run_race().startswith("texts identical"))
        self.assertEqual(self.browser.run("const n = document.querySelector('#race-verdict'); return [n.className, n.getAttribute('role')]"),
                         ["same", "status"])

    def test_a_text_that_ends_early_differs_too(self):
        self.server.without = ["The", " sky"]
        self.start()
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("TEXTS DIFFER from character 8 on"), verdict)
        self.assertIn("nothing without", verdict)

    def test_reasoning_is_compared_too(self):
        self.server.mode = "think"
        self.start()
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("texts identical"), verdict)
        for lane in ("with", "without"):
            self.assertEqual(self.browser.text(f"#race-{lane}"), SAID)
        thoughts = "return [...document.querySelectorAll('#race .thoughts')].map(n => n.textContent)"
        self.assertEqual(self.browser.run(thoughts), [THOUGHT] * 2)
        self.browser.click("#race summary")  # closed, also in the next race
        self.server.thoughts_without = ["Blue", " and", " <i>", "?"]
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("TEXTS DIFFER from character 6 of the reasoning on: \u201cor <i>?\u201d with speculation, "
                                           "\u201cand <i>?\u201d without"), verdict)
        # In sight, whatever the reader closed.
        self.assertEqual(self.browser.run("return [...document.querySelectorAll('#race .differs')].map("
                                          "n => [n.parentNode.className, n.textContent, n.closest('details').open])"),
                         [["thoughts", " or", True], ["thoughts", " and", True]])
        self.assertEqual(self.browser.run("return document.querySelectorAll('#race .reasoning').length"), 2)

    def test_sampling_that_keeps_distributions_only_is_no_fault(self):
        self.server.without, self.server.accept = ["The", " sea"], "rejection"
        self.start()
        self.assertTrue(self.run_race().startswith("TEXTS DIFFER"))  # greedy: equal under every rule
        self.settle(temperature="0.8")
        verdict = self.run_race()
        self.assertTrue(verdict.startswith("Texts differ"), verdict)
        self.assertIn("--accept rejection", verdict)
        self.assertNotIn("fault", verdict)

    def test_speculation_on_one_side_whatever_the_settings_say(self):
        self.start()
        for policy, sent in (("off", None), ("fixed:3", {"policy": "fixed:3"})):
            self.settle(policy=policy)
            self.run_race()
            self.assertEqual([r.get("speculation") for r in self.server.requests[-2:]], [sent, {"policy": "off"}])


class Colours(FakeCase):
    PLACES = [("body", "backgroundColor"), ("body", "color"), ("header", "backgroundColor"), ("#prompt", "backgroundColor"),
              ("#prompt", "borderTopColor"), (".facts", "color"), ("#send", "backgroundColor"), ("#legend .t.lookup", "backgroundColor"),
              (".chart .a", "stroke"), (".message .t.d2", "backgroundColor")]

    def colours(self):
        return [self.colour(*place) for place in self.PLACES]

    def brightness(self):
        return sum(int(n) for n in re.findall(r"\d+", self.colour("body", "backgroundColor"))[:3]) / 765

    def show_all(self):
        self.server.mode = "story"
        self.start()
        self.ask("Tell me about a lighthouse keeper who learns to cook.")
        self.facts()
        self.browser.wait("charts", "return document.querySelector('.chart .a')")

    def test_dark_and_light(self):
        self.browser.prefer("light")
        self.addCleanup(self.browser.prefer, "")
        self.addCleanup(self.browser.run, "localStorage.clear()")
        self.show_all()
        light = self.colours()
        self.assertGreater(self.brightness(), 0.9)
        self.picture("chat-light")
        self.browser.click("#toggle-theme")
        dark = self.colours()
        self.assertLess(self.brightness(), 0.2)
        for place, one, other in zip(self.PLACES, light, dark):
            self.assertNotEqual(one, other, place)
        self.picture("chat-dark")
        self.show_all()  # the choice outlives a reload, against what the system prefers
        self.assertEqual(self.colours(), dark)
        self.browser.click("#toggle-theme")
        self.assertEqual(self.colours(), light)
        self.browser.prefer("dark")
        self.show_all()
        self.assertEqual(self.colours(), light)

    def test_without_a_choice_the_system_decides(self):
        self.addCleanup(self.browser.prefer, "")
        for scheme, is_bright in (("dark", False), ("light", True)):
            self.browser.prefer(scheme)
            self.start()
            self.assertEqual(self.brightness() > 0.5, is_bright, scheme)

    def test_text_can_be_read_in_both(self):
        self.addCleanup(self.browser.prefer, "")
        self.server.drafter = None  # for the banner
        for scheme in ("light", "dark"):
            self.browser.prefer(scheme)
            self.show_all()
            for place in ("body", "#state", ".facts", ".who", "#send", "#clear", "#banner", "figcaption", "#legend", ".numbers span",
                          ".message .t.d4", "#legend .t.d4", "#legend .t.lookup", "#prompt"):
                self.assertGreaterEqual(self.browser.run(CONTRAST, place), 4.5, (scheme, place))
            self.server.mode = "think"
            self.ask("And why?")
            self.facts(2)
            for place in (".reasoning summary", ".thoughts .t.plain", ".thoughts .t.d2"):
                self.assertGreaterEqual(self.browser.run(CONTRAST, place), 4.5, (scheme, place))
            self.assertEqual(self.colour(".reasoning", "backgroundColor"), self.colour("header", "backgroundColor"), scheme)
            if scheme == "light":
                self.picture("reasoning")


class Phone(FakeCase):
    def test_phone(self):
        self.browser.phone(390, 844)
        self.addCleanup(self.browser.no_phone)
        self.server.mode = "think"
        self.start()
        self.assertEqual(self.browser.run("return innerWidth"), 390)
        self.browser.click("#toggle-settings")
        self.ask()
        self.facts()
        self.assertEqual(self.browser.run("return document.documentElement.scrollWidth"), 390)
        # Everything to touch lies inside and is large enough for a finger.
        boxes = self.browser.run("return [...document.querySelectorAll('button, input, select, textarea, summary')].filter("
                                 "n => n.offsetParent).map(n => { const b = n.getBoundingClientRect();"
                                 "return [n.id, b.left, b.right, b.height]; })")
        self.assertGreater(len(boxes), 10)
        for name, left, right, height in boxes:
            self.assertGreaterEqual(left, 0, name)
            self.assertLessEqual(right, 390, name)
            self.assertGreaterEqual(height, 16 if name == "load" else 28, name)
        self.browser.tap(".message.assistant .t.d2")
        self.assertIn("draft probability 0.50", self.browser.text("#tip"))

    def test_picture(self):
        self.browser.phone(390, 844)
        self.addCleanup(self.browser.no_phone)
        self.server.mode = "story"
        self.start()
        self.ask("Tell me about a lighthouse keeper who learns to cook.")
        self.facts()
        self.browser.tap(".message.assistant .t.d3")
        self.assertTrue(self.browser.visible("#tip"))
        self.picture("phone")


if __name__ == "__main__":
    page_case.main()
