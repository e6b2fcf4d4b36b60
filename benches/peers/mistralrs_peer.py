#!/usr/bin/env python3
"""Times mistral.rs on the CPU, in the manner of llama-bench, by its own measurements.

    RAYON_NUM_THREADS=2 mistralrs_peer.py -m FOLDER -p 512 -n 128 -r 5 -t 2 --dtype q8_0

FOLDER is a Llama checkpoint, whose weights mistral.rs quantises as it loads them for q8_0, q4_0 and q4_1. `pp512` is
the time of a prompt of 512 tokens, `tg128` that of 128 tokens after a prompt of one, as in a completion's `usage`.
mistral.rs takes no tokens, but text: words that are a token each.
"""

import os
import random
import sys

# its log goes to standard output, where the results go
os.environ["RUST_LOG"] = "off"

import mistralrs  # noqa: E402
from timing import arguments, measure  # noqa: E402

# a token each, with a space before, in every vocabulary of a language model of English
WORDS = "the cat sat on mat dog ran far away home and then went out to see what was in it".split()


def main():
    options = arguments(__doc__.splitlines()[0], ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1"]).parse_args()
    if os.environ.get("RAYON_NUM_THREADS") != str(options.threads):
        sys.exit("mistralrs_peer.py: RAYON_NUM_THREADS must be the number of threads")
    quantised = options.dtype.startswith("q")
    runner = mistralrs.Runner(
        which=mistralrs.Which.Plain(
            model_id=str(options.model),
            arch=mistralrs.Architecture.Llama,
            dtype=getattr(mistralrs.ModelDType, "F32" if quantised else options.dtype.upper()),
        ),
        in_situ_quant=options.dtype.upper() if quantised else None,
        prefix_cache_n=0,
        token_source="none",
        max_seqs=1,
    )

    words = random.Random(0)

    def complete(prompt, new):
        request = mistralrs.CompletionRequest(
            prompt=" ".join(words.choices(WORDS, k=prompt)),
            model="default",
            max_tokens=new,
            temperature=0.0,
            ignore_eos=True,
        )
        usage = runner.send_completion_request(request).usage
        if (usage.prompt_tokens, usage.completion_tokens) != (prompt, new):
            sys.exit(
                f"mistralrs_peer.py: {usage.prompt_tokens} and {usage.completion_tokens} tokens, not {prompt} and {new}"
            )
        return usage

    measure(
        options,
        lambda count: count / complete(count, 1).total_prompt_time_sec,
        # the first of the new tokens comes of the prompt, and its time is the prompt's
        lambda count: count / complete(1, count + 1).total_completion_time_sec,
    )


if __name__ == "__main__":
    main()
