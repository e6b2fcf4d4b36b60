#!/usr/bin/env python3
"""Writes a Llama checkpoint as a GGUF file for llama.cpp.

    to_gguf.py FOLDER FILE.gguf --dtype q4_0

The file has no vocabulary: it is to be timed with random tokens. llama.cpp itself quantises, all matrices in the type
asked for; in the 4-bit types the embedding and the head are q8_0, as attend holds them (llama.cpp's own tool would
make them q6_K).
"""

import argparse
import ctypes
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import ml_dtypes  # noqa: F401: teaches NumPy bfloat16
import numpy
from safetensors.numpy import load_file

FILE_TYPES = {
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
}


def interleaved(weight, heads):
    """The rows of a head in the order of llama.cpp's rotary embedding: pairs side by side, not in two halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_f32(folder, file):
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    scaling = config.get("rope_scaling") or {}
    if {rope.get("rope_type", "default"), scaling.get("rope_type", scaling.get("type", "default"))} != {"default"}:
        sys.exit(f"to_gguf.py: {folder}: scaled rotary embeddings are not supported here")
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads", heads)
    head_size = config.get("head_dim") or config["hidden_size"] // heads

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name, weight in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings", False):
            continue
        weight = weight.astype(numpy.float32)
        if name.endswith("q_proj.weight"):
            weight = interleaved(weight, heads)
        elif name.endswith("k_proj.weight"):
            weight = interleaved(weight, key_heads)
        gguf_name = names.get_name(name, try_suffixes=(".weight",))
        if gguf_name is None:
            sys.exit(f"to_gguf.py: {folder}: {name} is no tensor of a Llama without biases")
        writer.add_tensor(gguf_name, numpy.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source, file, dtype):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[dtype]
    if dtype.startswith("q4"):
        parameters.token_embedding_type = parameters.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    if llama_cpp.llama_model_quantize(bytes(source), bytes(file), ctypes.byref(parameters)) != 0:
        sys.exit(f"to_gguf.py: llama.cpp cannot write {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--dtype", choices=["f32", *FILE_TYPES], required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.file.parent) as temporary:
        whole = pathlib.Path(temporary) / "f32.gguf"
        write_f32(options.folder, whole)
        if options.dtype != "f32":
            quantised = pathlib.Path(temporary) / "quantised.gguf"
            quantise(whole, quantised, options.dtype)
            whole = quantised
        whole.rename(options.file)


if __name__ == "__main__":
    main()
