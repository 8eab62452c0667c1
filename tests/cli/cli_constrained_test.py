#!/usr/bin/env python3
"""`dspark run` with answers held to a grammar."""

import json
import unittest

from harness import Tool

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0,
          "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 2, "maxItems": 4}},
          "required": ["name", "age", "tags"], "additionalProperties": False}


class Constrained(Tool):
    def answer(self, *arguments):
        result = self.succeed("run", "--json", "-m", self.chat_model, "-p", "hello", "--temp", "1.2", *arguments)
        return json.loads(result.stdout)

    def test_schema(self):
        (self.path / "schema.json").write_text(json.dumps(SCHEMA))
        for seed in ("1", "2", "3"):
            flags = ("-n", "120", "--seed", seed, "--json-schema", "schema.json")
            plain = self.answer(*flags)
            value = json.loads(plain["text"])
            self.assertEqual(list(value), ["name", "age", "tags"])
            self.assertIn(value["age"], range(151))
            self.assertTrue(2 <= len(value["tags"]) <= 4 and set(value["tags"]) <= {"red", "green"}, value)
            self.assertEqual(plain["finish_reason"], "stop")
            drafted = self.answer(*flags, "-d", "ngram", "--spec", "fixed:4")
            self.assertEqual(drafted["tokens"], plain["tokens"])
            inline = self.answer("-n", "120", "--seed", seed, "--json-schema", json.dumps(SCHEMA))
            self.assertEqual(inline["tokens"], plain["tokens"])

    def test_json_object_is_complete_at_the_limit(self):
        for limit in ("2", "9", "40"):
            value = json.loads(self.answer("-n", limit, "--seed", "4", "--json-object")["text"])
            self.assertIsInstance(value, dict)

    def test_grammar(self):
        (self.path / "g.gbnf").write_text('root ::= ("yes" | "no") "!"{2,3}\n')
        self.assertRegex(self.answer("-n", "20", "--grammar", "g.gbnf")["text"], r"^(yes|no)!!!?$")

    def test_mistakes(self):
        (self.path / "bad.gbnf").write_text('root ::= "a\n')
        flags = ("run", "-m", self.chat_model, "-p", "x")
        self.assertIn("bad.gbnf:1:10: the literal is not closed", self.fail_with(1, *flags, "--grammar", "bad.gbnf"))
        self.assertIn("cannot be opened", self.fail_with(1, *flags, "--grammar", "none.gbnf"))
        self.assertIn("keyword 'typ'", self.fail_with(1, *flags, "--json-schema", '{"typ": "string"}'))
        self.assertIn("accepts no value", self.fail_with(1, *flags, "--json-schema", '{"not": {}}'))
        self.assertIn("exclude each other",
                      self.fail_with(1, *flags, "--json-object", "--json-schema", "{}"))


if __name__ == "__main__":
    unittest.main()
