#!/usr/bin/env python3
"""Prints a Markdown table of attend's speed beside candle-transformers', from the files that `run` wrote.

    benches/peers/compare.py FOLDER --dtype f32

FOLDER holds attend-1.json, candle-transformers-1.json, attend-2.json and so on, a pair per round. Each is a JSON
array, or JSON lines, of rows with `test` and `tokens_per_second`.
"""

import argparse
import json
import pathlib
import statistics
import sys

PEER = "candle-transformers"


def read_rows(path):
    """Tokens per second of each test in a file."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        speeds = {row["test"]: float(row["tokens_per_second"]["mean"]) for row in rows}
    except OSError as error:
        sys.exit(f"compare.py: cannot read {path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"compare.py: cannot understand {path}: {error!r}")
    if not speeds or any(speed <= 0 for speed in speeds.values()):
        sys.exit(f"compare.py: no speeds in {path}")
    return speeds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="where the results are")
    parser.add_argument("--dtype", required=True, help="shown in the table")
    arguments = parser.parse_args()

    rounds = []
    while (ours := arguments.folder / f"attend-{len(rounds) + 1}.json").exists():
        rounds.append((read_rows(ours), read_rows(arguments.folder / f"{PEER}-{len(rounds) + 1}.json")))
    if not rounds:
        sys.exit(f"compare.py: no attend-1.json in {arguments.folder}")

    print(f"| test | dtype | attend, tok/s | {PEER}, tok/s | ratio | per round |")
    print("|---|---|---:|---:|---:|---:|")
    for test in rounds[0][0]:
        if any(test not in rows for pair in rounds for rows in pair):
            sys.exit(f"compare.py: {test} is missing from some of the files in {arguments.folder}")
        attend = [ours[test] for ours, _ in rounds]
        peer = [theirs[test] for _, theirs in rounds]
        ratios = [ours / theirs for ours, theirs in zip(attend, peer)]
        attend, peer = statistics.median(attend), statistics.median(peer)
        print(
            f"| {test} | {arguments.dtype} | {attend:.1f} | {peer:.1f} | {attend / peer:.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
