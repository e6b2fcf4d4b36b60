#!/usr/bin/env python3
"""Times attend on random Llama checkpoints of growing size, and prints a Markdown table.

    scale.py --attend FILE --folder FOLDER [--dtype f32,q8_0] [--sizes 15M,135M,360M,1.1B]

Makes the checkpoints in FOLDER, in bf16, which is removed at the end. The sizes take turns, so that a change in the
machine's load meets all of them; the table has medians over the rounds.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

import ml_dtypes
import numpy
from safetensors.numpy import save_file

# the shapes of llama2.c's stories15M, SmolLM2-135M and -360M, and TinyLlama
SHAPES = {
    "15M": dict(hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
                num_key_value_heads=6, vocab_size=32000, tie_word_embeddings=True),
    "135M": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                 num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True),
    "360M": dict(hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15,
                 num_key_value_heads=5, vocab_size=49152, tie_word_embeddings=True),
    "1.1B": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                 num_key_value_heads=4, vocab_size=32000, tie_word_embeddings=False),
}
COMMON = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", attention_bias=False,
              mlp_bias=False, max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=10000.0,
              torch_dtype="bfloat16")


def make_checkpoint(shape, folder):
    """config.json and model.safetensors with normal weights of the deviation that models start their training with."""
    hidden, inner, vocabulary = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    random = numpy.random.default_rng(0)

    def matrix(rows, columns):
        weights = random.standard_normal((rows, columns), dtype=numpy.float32)
        return (weights * numpy.float32(0.02)).astype(ml_dtypes.bfloat16)

    norm = numpy.ones(hidden, dtype=ml_dtypes.bfloat16)
    tensors = {"model.embed_tokens.weight": matrix(vocabulary, hidden), "model.norm.weight": norm.copy()}
    if not shape["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(vocabulary, hidden)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors |= {
            prefix + "input_layernorm.weight": norm.copy(),
            prefix + "self_attn.q_proj.weight": matrix(hidden, hidden),
            prefix + "self_attn.k_proj.weight": matrix(keys, hidden),
            prefix + "self_attn.v_proj.weight": matrix(keys, hidden),
            prefix + "self_attn.o_proj.weight": matrix(hidden, hidden),
            prefix + "post_attention_layernorm.weight": norm.copy(),
            prefix + "mlp.gate_proj.weight": matrix(inner, hidden),
            prefix + "mlp.up_proj.weight": matrix(inner, hidden),
            prefix + "mlp.down_proj.weight": matrix(hidden, inner),
        }
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(COMMON | shape, indent=2))


def warm(folder):
    """Reads the checkpoint, and touches as much memory as its weights take in f32: files that are read for the first
    time, and in a virtual machine memory that its host has yet to find, would be timed otherwise."""
    size = len((folder / "model.safetensors").read_bytes())
    numpy.zeros(2 * size, dtype=numpy.uint8)[::4096] = 1


def bench(options, folder, dtype):
    """The rows of the two tests, each from a process of its own, whose memory is that of one model."""
    rows = []
    for prompt, new in [(options.n_prompt, 0), (0, options.n_gen)]:
        warm(folder)
        command = [options.attend, "bench", "-m", folder, "--device", "cpu", "--dtype", dtype, "-p", prompt,
                   "-n", new, "-t", options.threads, "-r", 1, "--no-capture", "-o", "json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"scale.py: attend failed:\n{done.stderr}")
        rows += json.loads(done.stdout)
    return rows


def print_table(options, results):
    print("| parameters | type | load, s | peak memory, MB | " +
          f"pp{options.n_prompt}, tok/s | tg{options.n_gen}, tok/s | MB a token | of bandwidth |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for dtype in options.dtype:
        for size in options.sizes:
            rounds = results[size, dtype]
            median = lambda value: statistics.median(value(*rows) for rows in rounds)
            memory = median(lambda pp, tg: max(pp["load_peak_memory"], pp["peak_memory"], tg["peak_memory"]))
            cells = [
                f"{rounds[0][0]['parameters'] / 1e6:.0f} M",
                dtype,
                f"{median(lambda pp, tg: min(pp['load_seconds'], tg['load_seconds'])):.2f}",
                f"{memory / 1e6:.0f}",
                f"{median(lambda pp, _: pp['tokens_per_second']['mean']):.1f}",
                f"{median(lambda _, tg: tg['tokens_per_second']['mean']):.1f}",
                f"{rounds[0][1]['bytes_per_token'] / 1e6:.0f}",
                f"{100 * median(lambda _, tg: tg['bandwidth_share']):.0f} %",
            ]
            print(f"| {' | '.join(cells)} |")


def main():
    comma = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attend", required=True, help="the program")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the checkpoints are made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", type=comma, default=["f32", "q8_0"], help="as `attend bench` has them")
    parser.add_argument("--sizes", type=comma, default=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-p", "--n-prompt", type=int, default=512)
    parser.add_argument("-n", "--n-gen", type=int, default=128)
    options = parser.parse_args()
    for size in options.sizes:
        if size not in SHAPES:
            parser.error(f"there is no size {size}; there are {', '.join(SHAPES)}")
    if min(options.rounds, options.n_prompt, options.n_gen) < 1:
        parser.error("rounds and tokens are numbers from 1 on")

    shutil.rmtree(options.folder, ignore_errors=True)
    results = {}
    try:
        for size in options.sizes:
            print(f"scale: making {options.folder / size}", file=sys.stderr)
            make_checkpoint(SHAPES[size], options.folder / size)
        for number in range(options.rounds):
            for dtype in options.dtype:
                for size in options.sizes:
                    print(f"scale: round {number + 1} of {options.rounds}: {size}, {dtype}", file=sys.stderr)
                    results.setdefault((size, dtype), []).append(bench(options, options.folder / size, dtype))
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    print_table(options, results)


if __name__ == "__main__":
    main()
