"""A tiny model and a drafter with a confidence head that agree, so that drafting pays and charts have something to show.

Made of the random ones of tests/cli: the model's layers hardly speak, so that every token repeats itself; the
drafter's sequential head proposes just that, and its confidence head is sure. The model is deep enough to be slower
than the drafter. Temperatures above 0 still give random texts.
"""

import json
import struct
import sys
from array import array
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import tiny_drafter  # noqa: E402
import tiny_model  # noqa: E402

LAYERS = 12
QUIET, LOUD, SURE = 0.05, 2.0, 2.0


def scaled(data, begin, size, factor):
    values = array("f", bytes(data[begin:begin + size]))
    data[begin:begin + size] = array("f", (value * factor for value in values)).tobytes()


def quieten_layers(path):
    """What every layer adds becomes small."""
    data = bytearray(path.read_bytes())
    sizes = []
    for name, shape in tiny_model.shapes(tiny_drafter.VOCAB):
        size = 4
        for n in shape:
            size *= n
        sizes.append((name, size))
    at = len(data) - sum(size + -size % 32 for _, size in sizes)  # tensors are the end of the file
    for name, size in sizes:
        if "attn_output" in name or "ffn_down" in name:
            scaled(data, at, size, QUIET)
        at += size + -size % 32
    path.write_bytes(data)


def make_sure(path):
    """The sequential head takes a token for its own successor, and the confidence head believes it."""
    data = bytearray(path.read_bytes())
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])

    def place(name):
        begin, end = header[name]["data_offsets"]
        return 8 + n + begin, end - begin

    (one, size), (two, _) = place("markov_head.markov_w1.weight"), place("markov_head.markov_w2.weight")
    scaled(data, one, size, LOUD)
    data[two:two + size] = data[one:one + size]
    bias, size = place("confidence_head.proj.bias")
    data[bias:bias + size] = struct.pack("<f", SURE)
    path.write_bytes(data)


def write_sure_pair(folder):
    """Writes both; returns their paths (model, drafter)."""
    folder = Path(folder)
    model = folder / "sure.gguf"
    with mock.patch.object(tiny_model, "LAYERS", LAYERS), mock.patch.object(tiny_drafter, "LAYERS", LAYERS):
        tiny_model.write_tiny_model(str(model))
        drafter = Path(tiny_drafter.write_tiny_drafter(folder / "sure-drafter"))
        quieten_layers(model)
    make_sure(drafter / "model.safetensors")
    return str(model), str(drafter)
