#!/usr/bin/env python3
"""Every schema of tests/data/json_schema and tests/data/schemas through the running server, judged by the package
`jsonschema`.

With drafts and without: every answer is complete and valid, and the texts are equal. On a tiny random model, whose
texts wander into every corner of a grammar, and on the default model when it is there.
Run by tests/clients/run, which installs the judge.
"""

import concurrent.futures
import json
import sys
import unittest

import jsonschema

from client_case import DRAFTED, PLAIN, default_model
from serve_harness import ROOT, Server, Tool

DATA = ROOT / "tests" / "data"


class Collection:
    """A folder of schemas. max_tokens, as in schema_suite_test.cc: every schema has texts as short as that."""

    def __init__(self, folder, least, max_tokens):
        self.folder, self.least, self.max_tokens = folder, least, max_tokens
        self.schemas = {path.stem: json.loads(path.read_text(encoding="utf-8"))
                        for path in sorted((DATA / folder).glob("*.json"))}


SMALL = Collection("json_schema", 89, 250)  # keyword by keyword
COLLECTED = Collection("schemas", 59, 400)  # as tools, libraries and configuration files have them
CHECKED_FORMATS = ("date", "date-time", "email", "hostname", "ipv4", "time", "uri", "uuid")


def standard(schema):
    """The schema in the words of JSON Schema: `nullable` is OpenAPI's."""
    if isinstance(schema, list):
        return [standard(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: standard(part) for key, part in schema.items() if key != "nullable"}
    if schema.get("nullable") is True:
        out = {"anyOf": [out, {"type": "null"}]}
    return out


def judge(schema):
    # `items` with a list is the tuple of the drafts before 2020.
    old = '"items":[' in json.dumps(schema, separators=(",", ":")) or \
        (isinstance(schema, dict) and "draft-07" in schema.get("$schema", ""))
    kind = jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator
    kind.check_schema(standard(schema))
    return kind(standard(schema), format_checker=kind.FORMAT_CHECKER)


class SchemaCase(Tool):
    """A server, and the suite on it."""

    def suite(self, collection, model, drafter, seeds, temperature):
        """How many drafts were accepted, by schema."""
        schemas = collection.schemas
        self.assertGreaterEqual(len(schemas), collection.least)
        server = Server("-m", model, "-d", drafter, "-c", "2048", "--parallel", "8", "-q")
        self.addCleanup(server.stop)

        def ask(name, seed, extra):
            answer = server.post("/v1/chat/completions", {
                "messages": [{"role": "user", "content": "An example as JSON, please: " + name.replace("_", " ")}],
                "max_tokens": collection.max_tokens, "temperature": temperature, "seed": seed, **extra,
                "response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schemas[name]}}})
            return answer.status, answer.json

        asked = [(name, seed, extra) for name in schemas for seed in seeds for extra in (DRAFTED, PLAIN)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda one: ask(*one), asked))
        accepted = {}
        for (name, seed, _), drafted, plain in zip(asked[::2], answers[::2], answers[1::2]):
            with self.subTest(schema=name, seed=seed):
                accepted[name] = accepted.get(name, 0) + self.check(judge(schemas[name]), drafted, plain)
        print(f"{collection.folder}: {len(answers)} answers, drafts accepted for {sum(n > 0 for n in accepted.values())} of "
              f"{len(schemas)} schemas, {sum(accepted.values())} in all", file=sys.stderr)
        return accepted

    def check(self, validator, drafted, plain):
        """Both answers are valid and the same; how many drafts were accepted."""
        self.assertEqual((drafted[0], plain[0]), (200, 200), (drafted[1], plain[1]))
        one, other = drafted[1]["choices"][0], plain[1]["choices"][0]
        self.assertEqual(one, other)
        # The limit is part of the constraint: an answer that was cut would say "length".
        self.assertEqual(one["finish_reason"], "stop", one)
        validator.validate(json.loads(one["message"]["content"]))
        self.assertEqual(plain[1]["usage"]["speculation"]["drafted"], 0)
        return drafted[1]["usage"]["speculation"]["accepted"]


class SchemaSuite(SchemaCase):
    def test_judge_checks_formats(self):
        # Without their packages jsonschema takes a format for a comment.
        for name in CHECKED_FORMATS:
            with self.assertRaises(jsonschema.ValidationError, msg=name):
                judge({"format": name}).validate("no such thing: 99")

    def on_tiny_model(self, collection):
        accepted = self.suite(collection, self.chat_model, "ngram", (1, 2), temperature=1.5)
        self.assertGreater(sum(accepted.values()), 0)

    def on_default_model(self, collection, seeds):
        found = default_model()
        if found is None:
            self.skipTest("the default model is not in models/cache: scripts/fetch-models")
        self.assertGreater(sum(self.suite(collection, *found, seeds, temperature=1).values()), 0)

    def test_tiny_model(self):
        self.on_tiny_model(SMALL)

    def test_tiny_model_with_collected_schemas(self):
        self.on_tiny_model(COLLECTED)

    def test_default_model(self):
        self.on_default_model(SMALL, (1, 2))

    def test_default_model_with_collected_schemas(self):
        self.on_default_model(COLLECTED, (1,))

    def test_collection_is_lifelike(self):
        sizes = [len((DATA / "schemas" / f"{name}.json").read_bytes()) for name in COLLECTED.schemas]
        self.assertGreaterEqual(sum(size > 2000 for size in sizes), 30)
        words = json.dumps(list(COLLECTED.schemas.values()))
        for keyword in ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "const", "patternProperties", "propertyNames",
                        "dependentRequired", "dependentSchemas", "dependencies", "uniqueItems", "contains", "multipleOf",
                        "prefixItems", "unevaluatedProperties", "nullable", "discriminator"):
            self.assertIn(f'"{keyword}": ', words)


if __name__ == "__main__":
    unittest.main()
