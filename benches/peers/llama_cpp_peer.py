#!/usr/bin/env python3
"""Times llama.cpp on the CPU in the manner of its own llama-bench, through llama-cpp-python's plain bindings.

    llama_cpp_peer.py -m FILE.gguf -p 512 -n 128 -r 5 -t 2

`pp512` is one `llama_decode` of 512 tokens, `tg128` 128 of one token each, both with an empty cache, flash attention
and otherwise llama.cpp's defaults (its cache is f16).
"""

import ctypes
import sys
import time

import llama_cpp
from timing import arguments, measure, random_tokens

ERROR, CONTINUED = 4, 5


@llama_cpp.llama_log_callback
def log(level, text, _):
    if ERROR <= level < CONTINUED:
        sys.stderr.write(text.decode(errors="replace"))


class Context:
    """A model with an empty cache."""

    def __init__(self, options):
        llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            bytes(options.model), llama_cpp.llama_model_default_params()
        )
        if not model:
            sys.exit(f"llama_cpp_peer.py: llama.cpp cannot load {options.model}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = max(options.n_prompt, options.n_gen)
        parameters.n_batch = parameters.n_ubatch = max(options.n_prompt, 1)
        parameters.n_threads = parameters.n_threads_batch = options.threads
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = llama_cpp.llama_init_from_model(model, parameters)
        if not self.context:
            sys.exit("llama_cpp_peer.py: llama.cpp cannot make a context with flash attention")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(self, count, chunk):
        """Tokens per second of feeding `count` tokens, `chunk` a call, to an empty cache."""
        tokens = random_tokens(count, self.vocabulary)
        chunks = [tokens[start : start + chunk] for start in range(0, count, chunk)]
        chunks = [(llama_cpp.llama_token * len(chunk))(*chunk) for chunk in chunks]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
        started = time.perf_counter()
        for chunk in chunks:
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(chunk, len(chunk))) != 0:
                sys.exit("llama_cpp_peer.py: llama_decode failed")
            llama_cpp.llama_synchronize(self.context)
        return count / (time.perf_counter() - started)


def main():
    options = arguments(__doc__.splitlines()[0], ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1"]).parse_args()
    context = Context(options)
    measure(options, lambda count: context.decode(count, count), lambda count: context.decode(count, 1))


if __name__ == "__main__":
    main()
