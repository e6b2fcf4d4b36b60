"""Average the weights of exported folders of one training run; it is often better than any of them.

    python average.py OUT MODEL_DIR:SHARE MODEL_DIR:SHARE ...

Used on what `train.py` exports at different times; training can go on from the average with `train.py --start`.
"""
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, parts = Path(sys.argv[1]), [a.rsplit(":", 1) for a in sys.argv[2:]]
    whole = sum(float(share) for _, share in parts)
    total = {}
    for folder, share in parts:
        for name, w in load_file(Path(folder) / "model.safetensors").items():
            total[name] = total.get(name, 0) + w.float() * float(share) / whole
    out.mkdir(parents=True, exist_ok=True)
    for f in Path(parts[0][0]).glob("*.json"):
        shutil.copy(f, out)
    save_file({k: w.to(torch.float16) for k, w in total.items()}, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
