"""What the tests with other people's clients share: a server with keys, and requests with and without speculation.

The model is the default one with the drafter that comes with it, when scripts/fetch-models has put it into
models/cache; else a tiny random one with prompt lookup, with a word about it. Where $DSPARK_REQUIRE_TOOLS is 1, as it is
in scripts/test, a missing default model is a failure, unless $DSPARK_OFFLINE is 1. $DSPARK_CLIENT_MODEL names another
file ("tiny": the tiny one), $DSPARK_CLIENT_DRAFTER its drafter.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from serve_harness import ROOT, SLOWDOWN, Server, Tool  # noqa: E402

CACHE = Path(os.environ.get("DSPARK_MODELS") or ROOT / "models" / "cache")
DEFAULT_MODEL = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
SHIPPED_DRAFTER = ROOT / "drafters" / "smollm2-135m-instruct" / "dspark.gguf"
KEY = "secret"
DRAFTED = {"speculation": {"policy": "fixed:4"}}
PLAIN = {"speculation": {"policy": "off"}}


def default_model():
    """(model, its drafter), or None when it was not fetched and need not be."""
    if DEFAULT_MODEL.is_file():
        if not SHIPPED_DRAFTER.is_file():
            raise AssertionError(f"clients: the drafter of the default model is missing: {SHIPPED_DRAFTER}")
        return str(DEFAULT_MODEL), str(SHIPPED_DRAFTER)
    missing = f"the default model is not there ({DEFAULT_MODEL}); scripts/fetch-models fetches it"
    if os.environ.get("DSPARK_REQUIRE_TOOLS") == "1" and os.environ.get("DSPARK_OFFLINE") != "1":
        raise AssertionError(f"clients: {missing}; where there is no network, say so with DSPARK_OFFLINE=1")
    print(f"clients: note: {missing}", file=sys.stderr)
    return None


def served_model(tiny):
    """(model, drafter, whether it is a real model)."""
    named = os.environ.get("DSPARK_CLIENT_MODEL")
    if named and named != "tiny":
        return named, os.environ.get("DSPARK_CLIENT_DRAFTER", "ngram"), True
    found = None if named else default_model()
    return (*found, True) if found else (tiny, "ngram", False)


class ClientCase(Tool):
    """One server for all tests of a class; the model is called `default`."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model, drafter, cls.real = served_model(cls.chat_model)
        print(f"clients: {cls.__name__} with {Path(model).name} and the drafter {Path(drafter).name}", file=sys.stderr)
        cls.server = Server("-m", f"default={model}", "-d", f"default={drafter}", "-c", "2048", "--parallel", "4",
                            environment={"DSPARK_API_KEY": KEY})
        cls.addClassCleanup(cls.server.stop)
        cls.url = f"http://127.0.0.1:{cls.server.port}"

    def same_text(self, ask, say, report):
        """ask(fields) with drafts and without: say(answer) is equal. The drafted answer.

        report(answer) is the report of speculation. A real model must have accepted drafts: a server that never
        drafts would pass everything else.
        """
        drafted, plain = ask(DRAFTED), ask(PLAIN)
        self.assertEqual(say(drafted), say(plain))
        self.assertEqual(report(plain)["drafted"], 0)
        told = report(drafted)
        self.assertEqual(told["drafted"], told["verified"] + told["trimmed"])
        self.assertGreaterEqual(told["verified"], told["accepted"])
        if self.real:
            self.assertGreater(told["accepted"], 0, told)
        return drafted
