#!/usr/bin/env python3
"""Speed of a pair of published size without its weights: writes a random target and DSpark drafter of a given
config, quantises both, measures them, and prints one table.

    bench/random_pair.py --out /data/pair                       # Qwen3-4B and its DSpark drafter, Q4_0
    bench/random_pair.py --out /data/pair --target DIR --drafter DIR --type Q4_K
    bench/random_pair.py --out /data/moe --moe                  # a mixture of 88 million parameters
    bench/random_pair.py --out /tmp/pair --quick                # seconds; says nothing about speed

Needs Python 3.9 and the program `dspark`; no packages, no tokenizer, no network. DIR holds a config.json as
released (Qwen3, Qwen3-MoE; for the drafter DeepSpec's Qwen3DSparkModel); its other files are not looked at.

Weights are normal numbers around 0 with deviation 1 / sqrt(row length), norms are 1. They are pieces of one
pool of random numbers, so writing is as fast as the disk and takes little memory. Speed does not depend on
the values, with two exceptions: a router of random weights spreads rows evenly over the experts, and a random
drafter is (almost) never right, so there is no speed-up to see here, only what drafts and passes cost. The
drafter gets no embedding and no head: released ones hold copies of the target's.

Disk: the BF16 folder of a model is deleted once it is quantised (--keep: not), so the most is the BF16 target
and its quantised file: about 10.5 GB for Qwen3-4B, 3 GB in the end. Files that are there already are used as
they are.
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLANS = ROOT / "tests" / "data" / "plan"
POOL = 262147  # a prime: rows of a tensor meet the pool at ever new places
SHARD_BYTES = 1 << 30
ROWS = [1, 2, 4, 8, 16]
BYTES = 256  # tokens of the stand-in tokenizer

BASE = {"rms_norm_eps": 1e-6, "rope_theta": 1000000, "hidden_act": "silu", "attention_bias": False,
        "max_position_embeddings": 8192}
QUICK = {**BASE, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
         "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 32, "vocab_size": 512, "tie_word_embeddings": True}
MOE = {**BASE, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 512,
       "intermediate_size": 1024, "moe_intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
       "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 8192, "num_experts": 32, "num_experts_per_tok": 4,
       "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False}
QUICK_MOE = {**MOE, "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32,
             "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 32, "vocab_size": 512,
             "num_experts": 8, "num_experts_per_tok": 2}


def drafter_for(target, n_layers, rank):
    """The config of a DSpark drafter for a target of another size than the published ones."""
    settings = {key: target[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads",
                                             "num_key_value_heads", "head_dim", "vocab_size")}
    last = target["num_hidden_layers"] - 2
    return {**BASE, **settings, "architectures": ["Qwen3DSparkModel"], "model_type": "qwen3",
            "num_hidden_layers": n_layers, "tie_word_embeddings": False, "layer_types": ["full_attention"] * n_layers,
            "num_target_layers": target["num_hidden_layers"], "target_layer_ids": sorted({1, (1 + last) // 2, last}),
            "block_size": 7, "mask_token_id": target["vocab_size"] - 1, "num_anchors": 512, "markov_rank": rank,
            "markov_head_type": "vanilla", "enable_confidence_head": True, "confidence_head_with_markov": True}


def layer_tensors(config, prefix, sparse):
    """Names and shapes of one decoder layer."""
    dim, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield prefix + "input_layernorm.weight", (dim,)
    yield prefix + "self_attn.q_proj.weight", (queries, dim)
    yield prefix + "self_attn.k_proj.weight", (keys, dim)
    yield prefix + "self_attn.v_proj.weight", (keys, dim)
    yield prefix + "self_attn.o_proj.weight", (dim, queries)
    yield prefix + "self_attn.q_norm.weight", (head,)
    yield prefix + "self_attn.k_norm.weight", (head,)
    yield prefix + "post_attention_layernorm.weight", (dim,)
    mlps, width = [prefix + "mlp."], config["intermediate_size"]
    if sparse:
        yield prefix + "mlp.gate.weight", (config["num_experts"], dim)
        mlps = [f"{prefix}mlp.experts.{e}." for e in range(config["num_experts"])]
        width = config["moe_intermediate_size"]
    for mlp in mlps:
        yield mlp + "gate_proj.weight", (width, dim)
        yield mlp + "up_proj.weight", (width, dim)
        yield mlp + "down_proj.weight", (dim, width)


def target_tensors(config):
    dim, vocab = config["hidden_size"], config["vocab_size"]
    if config["model_type"] not in ("qwen3", "qwen3_moe"):
        sys.exit(f"random_pair: model_type '{config['model_type']}' (want qwen3 or qwen3_moe)")
    yield "model.embed_tokens.weight", (vocab, dim)
    for i in range(config["num_hidden_layers"]):
        yield from layer_tensors(config, f"model.layers.{i}.", config["model_type"] == "qwen3_moe")
    yield "model.norm.weight", (dim,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, dim)


def drafter_tensors(config):
    dim, vocab, rank = config["hidden_size"], config["vocab_size"], config["markov_rank"]
    yield "fc.weight", (dim, len(config["target_layer_ids"]) * dim)
    yield "hidden_norm.weight", (dim,)
    for i in range(config["num_hidden_layers"]):
        yield from layer_tensors(config, f"layers.{i}.", False)
    yield "norm.weight", (dim,)
    yield "markov_head.markov_w1.weight", (vocab, rank)
    yield "markov_head.markov_w2.weight", (vocab, rank)
    if config["enable_confidence_head"]:
        yield "confidence_head.proj.weight", (1, dim + (rank if config["confidence_head_with_markov"] else 0))
        yield "confidence_head.proj.bias", (1,)


def count(shape):
    n = 1
    for extent in shape:
        n *= extent
    return n


class Weights:
    """BF16 bytes of tensors, from one pool of normal numbers per row length."""

    def __init__(self, seed):
        self.noise = random.Random(seed)
        self.normal = [self.noise.gauss(0.0, 1.0) for _ in range(POOL)]
        self.pools = {}

    def pool(self, row):
        if row not in self.pools:
            scale = row ** -0.5
            self.pools[row] = bf16(array("f", (scale * x for x in self.normal)))
        return self.pools[row]

    def write(self, file, shape):
        n = count(shape)
        if len(shape) == 1:
            file.write(bf16(array("f", [1.0 if n > 1 else 0.0] * n)))
            return
        pool = self.pool(shape[1])
        while n > 0:
            first = self.noise.randrange(POOL)
            piece = min(n, POOL - first)
            file.write(pool[2 * first:2 * (first + piece)])
            n -= piece


def bf16(floats):
    """The upper halves of little-endian floats."""
    halves = array("H", floats.tobytes())
    if sys.byteorder != "little":
        sys.exit("random_pair: want a little-endian machine")
    return memoryview(halves[1::2].tobytes())


def shards_of(tensors):
    shard, size = [], 0
    for name, shape in tensors:
        if shard and size + 2 * count(shape) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, shape))
        size += 2 * count(shape)
    yield shard


def write_folder(folder, config, tensors, weights):
    """A Hugging Face folder: config.json, shards, their index, and a tokenizer of bytes for a target."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shards = list(shards_of(tensors))
    places = {}
    for i, shard in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, end = {}, 0
        for tensor, shape in shard:
            header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + 2 * count(shape)]}
            end += 2 * count(shape)
            places[tensor] = name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, shape in shard:
                weights.write(file, shape)
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def write_tokenizer(folder):
    """Bytes and nothing else, in the form of byte-level BPE: models are not opened without a tokenizer."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    end = {"id": BYTES, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [end], "normalizer": None, "pre_tokenizer": level, "decoder": level,
        "post_processor": None,
        "model": {"type": "BPE", "vocab": {letters[byte]: byte for byte in range(BYTES)}, "merges": []}}))


def call(args, *arguments):
    command = [args.dspark, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"random_pair: failed: {' '.join(command)}")
    return done.stdout


def make(args, name, config, tensors, *options):
    """The quantised file of a model that is written first, unless the file is there."""
    path = args.out / f"{name}-{args.type}.gguf"
    if path.exists():
        return path
    folder = args.out / name
    print(f"random_pair: {name}: {sum(count(shape) for _, shape in tensors):,} parameters", file=sys.stderr)
    write_folder(folder, config, tensors, Weights(len(name)))
    if name == "target":
        write_tokenizer(folder)
    call(args, "quantize", "-q", "--type", args.type, *options, folder, path)
    if not args.keep:
        shutil.rmtree(folder)
    return path


def load(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def configs(args):
    if args.moe:
        target = QUICK_MOE if args.quick else MOE
        return target, drafter_for(target, 1, 16 if args.quick else 64)
    if args.quick:
        return QUICK, drafter_for(QUICK, 1, 16)
    return load(args.target), load(args.drafter)


def bench(args, target):
    rows = ",".join(map(str, ROWS))
    effort = ["--prefill", 0, "--depths", 16, "--pass-depth", 16, "-r", 1] if args.quick else ["--prefill", 0]
    out = json.loads(call(args, "bench", "-m", target, "--rows", rows, "--json", *args.threads, *effort))
    decode = next(row for row in out if row["test"] == "decode")
    return decode, {row["rows"]: row["ms"] for row in out if row["test"] == "pass"}


def profile(args, target, drafter):
    effort = ["--seconds", 0.05, "--long-context", 128, "--context", 32, "--rows", 16, "--sequences", 1]
    effort = effort if args.quick else ["--rows", 32, "--sequences", 4, "--seconds", 4]
    return json.loads(call(args, "profile", "-m", target, "-d", drafter, "--no-hybrid", "--json", *args.threads,
                           *effort))


def table(args, target, drafter, decode, passes, costs):
    """Lines of Markdown: one header, one row."""
    block = costs["draft_length"]
    draft, short = costs["draft"][0]["ms"], costs["draft_short"][0]["ms"]
    one = passes[1]
    verify = {point["n"]: point["ms"] for point in costs["verify"]}
    widest = max(n for n in verify if n <= block + 1)
    head = ["model", "target + drafter, MB", f"decode at {decode['depth']}, tok/s"]
    sizes = " + ".join(f"{path.stat().st_size / 1e6:.1f}" for path in (target, drafter))
    row = [args.name, sizes, f"{decode['tokens_per_s']:.2f}"]
    for n in ROWS:
        head.append(f"pass of {n}, ms")
        row.append(f"{passes[n]:.2f} (x{passes[n] / one:.2f})")
    head += [f"{block} drafts, ms", "1 draft, ms", "drafts / pass of 1", f"drafts' share of a round ({widest} rows)"]
    row += [f"{draft:.2f}", f"{short:.2f}", f"{100 * draft / verify[1]:.1f} %",
            f"{100 * draft / (draft + verify[widest]):.1f} %"]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), row))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files; made if absent")
    parser.add_argument("--target", default=PLANS / "qwen3_4b", help="folder with the target's config.json")
    parser.add_argument("--drafter", default=PLANS / "dspark_qwen3_4b_block7", help="the same of the drafter")
    parser.add_argument("--moe", action="store_true", help="a mixture of middle size instead")
    parser.add_argument("--quick", action="store_true", help="tiny models, few repeats: tests this script")
    parser.add_argument("--type", default="Q4_0", help="type of the matrices, as for dspark quantize")
    parser.add_argument("--threads", type=int, help="threads (default: that of dspark)")
    parser.add_argument("--keep", action="store_true", help="keep the BF16 folders")
    parser.add_argument("--dspark", default=str(ROOT / "build" / "release" / "dspark"))
    args = parser.parse_args()
    args.threads = ["-t", args.threads] if args.threads else []
    args.out.mkdir(parents=True, exist_ok=True)
    args.name = ("mixture" if args.moe else "quick" if args.quick else Path(args.target).name) + " " + args.type
    target_config, drafter_config = configs(args)
    target = make(args, "target", target_config, list(target_tensors(target_config)))
    drafter = make(args, "drafter", drafter_config, list(drafter_tensors(drafter_config)), "--target", target)
    decode, passes = bench(args, target)
    print(table(args, target, drafter, decode, passes, profile(args, target, drafter)))


if __name__ == "__main__":
    main()
