#!/usr/bin/env python3
"""Times OpenVINO GenAI on the CPU, in the manner of llama-bench, by its own measurements.

    openvino_peer.py -m FOLDER -p 512 -n 128 -r 5 -t 2

FOLDER is what `optimum-cli export openvino` wrote. `pp512` is a prompt of 512 tokens until its first token, `tg128`
the mean over 128 tokens after the first, from a prompt of one token. Precision of the arithmetic is f32, and all else
as OpenVINO GenAI has it by default. Where ONEDNN_MAX_CPU_ISA is AVX2, int8 weights meet f32 activations.
"""

import os

import openvino
import openvino_genai
import numpy
from timing import arguments, measure, random_tokens


def main():
    parser = arguments(__doc__.splitlines()[0], ["fp32", "int8"])
    parser.add_argument("--vocabulary", type=int, required=True, help="random tokens are below it")
    options = parser.parse_args()
    settings = {}
    if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2":
        # OpenVINO sees that the CPU has VNNI and asks oneDNN for 8-bit activations, which it has not on AVX2 alone
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    pipeline = openvino_genai.LLMPipeline(
        str(options.model),
        "CPU",
        INFERENCE_PRECISION_HINT="f32",
        INFERENCE_NUM_THREADS=options.threads,
        NUM_STREAMS="1",
        **settings,
    )

    def generate(prompt, new):
        tokens = numpy.array([random_tokens(prompt, options.vocabulary)], dtype=numpy.int64)
        config = openvino_genai.GenerationConfig(max_new_tokens=new, ignore_eos=True)
        result = pipeline.generate(openvino.Tensor(tokens), config)
        assert result.perf_metrics.get_num_input_tokens() == prompt
        assert result.perf_metrics.get_num_generated_tokens() == new
        return result.perf_metrics

    # both in milliseconds
    measure(
        options,
        lambda count: count * 1000 / generate(count, 1).get_ttft().mean,
        lambda count: 1000 / generate(1, count + 1).get_tpot().mean,
    )


if __name__ == "__main__":
    main()
