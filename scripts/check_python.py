"""What scripts/check-python runs: dumps against Transformers, BertViz, CircuitsVis and NumPy.

    scripts/check_python.py SMOLLM2_FOLDER
"""
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import jsonschema
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTEND = ROOT / "target/release/attend"
NEW = 6
# Absolute, for attention weights in f32: sums in another order.
BOUND = 2e-5


def attend(*args):
    subprocess.run([ATTEND, *map(str, args)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def record(model, ids, dump, *more, new=NEW):
    attend("generate", "-m", model, "--prompt-ids", ",".join(map(str, ids)), "-n", new, "--temp", 0,
           "--attention", dump, "--overwrite", *more)
    attend("dump", "check", dump)
    schema = json.loads((ROOT / "schema/manifest.schema.json").read_text())
    manifest = json.loads((pathlib.Path(dump) / "manifest.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema, cls=jsonschema.Draft202012Validator)


def close(ours, theirs, bound, what):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape} for {theirs.shape}"
    assert np.isfinite(ours).all() and np.isfinite(theirs).all(), what
    worst = np.abs(ours - theirs).max(initial=0)
    assert worst <= bound, f"{what}: differs by {worst}, the bound is {bound}"


def load(model):
    return transformers.AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", dtype=torch.float32)


def readme_blocks():
    text = (ROOT / "README.md").read_text()
    reading, showing = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return reading, showing


def readme(folder):
    """Runs README's code on FOLDER/dump."""
    reading, showing = readme_blocks()
    code = [line for line in reading.splitlines() if line and not line.startswith("#")]
    assert len(code) <= 10, f"README says ten lines, and there are {len(code)}"
    names = {}
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(reading, names)
        # Outside a notebook both give their page back; BertViz would only display it.
        shown = {}
        import bertviz
        import circuitsvis.attention
        # The package gives the function the name of its module.
        sys.modules["bertviz.head_view"].display = lambda page: shown.setdefault("bertviz", []).append(page)
        patterns = circuitsvis.attention.attention_patterns
        circuitsvis.attention.attention_patterns = lambda **kw: shown.setdefault("circuitsvis", patterns(**kw))
        exec(showing, names)
        circuitsvis.attention.attention_patterns = patterns
    finally:
        os.chdir(before)
    # Both write the weights into their page; one that is not 0 or 1 and has few digits is looked for.
    pages = " ".join(page.data for page in shown["bertviz"]), str(shown["circuitsvis"])
    for tool, page, weight in zip(("BertViz", "CircuitsVis"), pages, (names["squares"][-1], names["squares"][0])):
        digits = re.escape(f"{weight[0, 1, -1, 3]:.5f}"[:-1])
        assert re.search(digits, page), f"{tool} does not show the weight {weight[0, 1, -1, 3]}"
    return names


def check_tuples(work):
    model_path, ids = ROOT / "tests/fixtures/llama", [3, 141, 59, 26, 53, 58, 97, 93, 23, 84]
    record(model_path, ids, work / "dump")
    model = load(model_path)
    # No end of its own, as the dump's.
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0,
                            output_attentions=True, return_dict_in_generate=True)
    names = readme(work)
    ours = names["attentions"]
    assert isinstance(ours, tuple) and len(ours) == len(theirs.attentions) == NEW, "G new tokens give G steps"
    for step, (our_layers, their_layers) in enumerate(zip(ours, theirs.attentions)):
        assert isinstance(our_layers, tuple) and len(our_layers) == len(their_layers)
        for layer, (our, their) in enumerate(zip(our_layers, their_layers)):
            close(our, their.numpy(), BOUND, f"step {step} layer {layer}")
    lines = [json.loads(line) for line in open(work / "dump/tokens.jsonl")]
    assert [line["id"] for line in lines] == theirs.sequences[0].tolist()
    # The square is one pass over the text without its last token.
    with torch.no_grad():
        whole = model(theirs.sequences[:, :-1], output_attentions=True).attentions
    for layer, (our, their) in enumerate(zip(names["squares"], whole)):
        close(our, their.numpy(), BOUND, f"square of layer {layer}")
    assert len(names["tokens"]) == names["squares"][0].shape[3]
    print("check-python: README's code gives Transformers' tuples, BertViz's squares, CircuitsVis' array")
    return [attention.numpy()[0].astype(np.float64) for attention in whole], ids


def check_kinds(work, whole, ids):
    model = ROOT / "tests/fixtures/llama"
    keys = whole[0].shape[-1]
    query, key = np.arange(keys)[:, None], np.arange(keys)[None]
    record(model, ids, work / "stats", "--attention-kind", "stats")
    attend("dump", "convert", work / "stats", "--to", "npy", "-o", work / "stats-npy")
    for layer, p in enumerate(whole):
        expected = {
            "entropy": -(p * np.log(np.where(p > 0, p, 1))).sum(-1),
            "first_token": p[:, :, 0],
            "self": np.diagonal(p, axis1=1, axis2=2),
            "previous_token": np.pad(np.diagonal(p, -1, axis1=1, axis2=2), [(0, 0), (1, 0)]),
            "mean_distance": (p * np.abs(query - key)).sum(-1),
        }
        for name, values in expected.items():
            ours = np.load(work / f"stats-npy/layer.{layer:03}.{name}.npy", mmap_mode="r")
            close(ours, values, 1e-4, f"{name} of layer {layer}")
    for dtype, bound in ("f32", BOUND), ("f16", 1e-3):
        record(model, ids, work / "top", "--attention-kind", "top:4", "--attention-dtype", dtype)
        top = load_file(work / "top/steps/00000.safetensors")
        for layer, p in enumerate(whole):
            p = p[:, : len(ids), : len(ids)]
            largest = -np.sort(-p, axis=-1)[:, :, :4]
            close(top[f"layer.{layer:03}.top_weights"], largest, bound, "largest weights")
            keys_of = top[f"layer.{layer:03}.top_keys"]
            listed = np.take_along_axis(p, np.maximum(keys_of, 0), -1) * (keys_of >= 0)
            close(listed, largest, bound, "weights of the keys listed")
            close(top[f"layer.{layer:03}.rest"], 1 - largest.sum(-1), BOUND, "rest")
    record(model, ids, work / "part", "--queries", "every:4", "--attention-dtype", "f16")
    attend("dump", "convert", work / "part", "--to", "npy", "-o", work / "part-npy")
    queries = np.load(work / "part-npy/queries.npy")
    assert queries.tolist() == list(range(0, keys, 4))
    for layer, p in enumerate(whole):
        ours = np.load(work / f"part-npy/layer.{layer:03}.npy")
        assert ours.dtype == np.float16
        close(ours, p[:, queries], 1e-3, f"rows of layer {layer}")
    attend("dump", "convert", work / "part", "--to", "csv", "-o", work / "part.csv")
    table = np.genfromtxt(work / "part.csv", delimiter=",", names=True)
    for line in table:
        at = tuple(int(line[name]) for name in ("head", "query", "key"))
        close(line["weight"], whole[int(line["layer"])][at], 1e-3, f"line {line}")
    print("check-python: statistics, largest weights, selected queries, .npy and .csv agree with NumPy")


def check_long(work, model_path):
    """20 rows of a long prompt, four neighbours at five random places: each of the model's heads, in f32."""
    rng = random.Random(6)
    model = load(model_path)
    vocabulary = model.config.vocab_size
    # Some text repeats, as texts do.
    ids = [rng.randrange(vocabulary) for _ in range(2048)]
    ids += [rng.choice((token, rng.randrange(vocabulary))) for token in ids]
    firsts = sorted(rng.sample(range(0, len(ids), 4), 5))
    rows = [first + index for first in firsts for index in range(4)]
    kept = {}

    def keep(layer):
        def hook(_module, _args, output):
            kept[layer] = output[1][0, :, rows].numpy().copy()
            return output[0], None
        return hook

    for layer, block in enumerate(model.model.layers):
        block.self_attn.register_forward_hook(keep(layer))
    with torch.no_grad():
        model.model(torch.tensor([ids]), use_cache=False)
    worst = 0
    for index, first in enumerate(firsts):
        record(model_path, ids, work / "long", "--queries", f"{first}-{first + 3}", new=1)
        step = load_file(work / "long/steps/00000.safetensors")
        assert len(kept) == len(step) == model.config.num_hidden_layers
        for layer, expected in kept.items():
            ours, theirs = step[f"layer.{layer:03}"], expected[:, 4 * index : 4 * index + 4]
            close(ours, theirs, BOUND, f"queries from {first} on, layer {layer}")
            worst = max(worst, np.abs(ours - theirs).max())
    print(f"check-python: 20 rows of {len(ids)} tokens differ from Transformers' by at most {worst:.1e}")


def main():
    smollm2 = pathlib.Path(sys.argv[1]) / "f32"
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        whole, ids = check_tuples(work)
        check_kinds(work, whole, ids)
        if smollm2.is_dir():
            check_long(work, smollm2)
        else:
            print(f"check-python: SKIPPED: {smollm2} is not there, so no long prompt is compared")


main()
