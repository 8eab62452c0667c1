"""Reads small safetensors files with the standard library."""

import json
import struct
from array import array
from pathlib import Path

CODES = {"F32": "f", "I32": "i"}


def read_safetensors(path):
    """name -> (shape, values)."""
    blob = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        out[name] = (info["shape"], array(CODES[info["dtype"]], blob[8 + size + begin:8 + size + end]))
    return out


def largest_difference(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))
