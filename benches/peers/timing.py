"""What the peers in Python share: their arguments, random tokens, and one JSON object a test, as candle-llama prints."""

import argparse
import json
import pathlib
import random
import statistics


def arguments(description, dtypes):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True, help="checkpoint in the peer's own format")
    parser.add_argument("-p", "--n-prompt", type=int, default=512, help="tokens of the prompt test")
    parser.add_argument("-n", "--n-gen", type=int, default=128, help="tokens of the generation test")
    parser.add_argument("-r", "--repetitions", type=int, default=5, help="counted repetitions of each test")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="of the weights")
    return parser


def random_tokens(count, vocabulary):
    """Others at every call, so that no cache of prompts can help; the same in every run."""
    return _random.choices(range(vocabulary), k=count)


_random = random.Random(0)


def measure(options, prompt, generation, suffix=""):
    """Times `prompt(tokens)` and `generation(tokens)`, which return tokens per second, and prints the samples.

    Each is run once uncounted before. `suffix` is put behind the name of the test.
    """
    for name, count, test in [("pp", options.n_prompt, prompt), ("tg", options.n_gen, generation)]:
        if count == 0:
            continue
        test(count)
        samples = [test(count) for _ in range(options.repetitions)]
        speed = {
            "mean": statistics.fmean(samples),
            "deviation": statistics.stdev(samples) if len(samples) > 1 else 0.0,
            "samples": samples,
        }
        row = {"test": f"{name}{count}{suffix}", "dtype": options.dtype, "threads": options.threads}
        print(json.dumps(row | {"tokens_per_second": speed}), flush=True)
