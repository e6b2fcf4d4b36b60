#!/usr/bin/env python3
"""Prints Markdown tables of attend's speed beside the peers', from the files that `run` wrote.

    benches/peers/compare.py FOLDER

FOLDER holds PROGRAM-DTYPE-ROUND.json, one file for each program, type and round, attend's among them. Each is a JSON
array, or JSON lines, of rows with `test`, `dtype` and `tokens_per_second`. canary-ROUND.txt has the canary's GFLOP/s
before each program of the round.
"""

import argparse
import json
import pathlib
import statistics
import sys

MAPS = " with maps"


def read_rows(path):
    """The rows of a file, by test; what attend reached while it captured is a test of its own."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        tests = {}
        for row in rows:
            tests[row["test"]] = row | {"speed": float(row["tokens_per_second"]["mean"])}
            if capturing := row.get("tokens_per_second_capturing"):
                tests[row["test"] + MAPS] = row | {"speed": float(capturing["mean"])}
    except OSError as error:
        sys.exit(f"compare.py: cannot read {path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"compare.py: cannot understand {path}: {error!r}")
    if not tests or any(row["speed"] <= 0 for row in tests.values()):
        sys.exit(f"compare.py: no speeds in {path}")
    return tests


def read_folder(folder):
    """{dtype: {program: [tests of round 1, of round 2, ...]}}"""
    found = {}
    for path in folder.glob("*-*-*.json"):
        program, dtype, number = path.stem.rsplit("-", 2)
        found.setdefault(dtype, {}).setdefault(program, {})[int(number)] = read_rows(path)
    rounds = sorted({number for programs in found.values() for numbers in programs.values() for number in numbers})
    for dtype, programs in found.items():
        for program, numbers in programs.items():
            if sorted(numbers) != rounds:
                sys.exit(f"compare.py: {folder}: {program}, {dtype}, was not timed in every round")
            programs[program] = [numbers[number] for number in rounds]
        if "attend" not in programs:
            sys.exit(f"compare.py: {folder}: no files of attend, {dtype}")
    if not found:
        sys.exit(f"compare.py: no results in {folder}")
    return found


def median(rounds, test):
    return statistics.median(tests[test]["speed"] for tests in rounds)


def comparison(dtype, test, attend, name, peer, peer_test):
    if any(test not in tests for tests in attend):
        sys.exit(f"compare.py: {name} has {test}, {dtype}, and attend has not")
    ours, theirs = median(attend, test), median(peer, peer_test)
    ratios = [ours[test]["speed"] / theirs[peer_test]["speed"] for ours, theirs in zip(attend, peer)]
    cells = [test, dtype, name, f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}",
             f"{min(ratios):.2f} to {max(ratios):.2f}"]
    print(f"| {' | '.join(cells)} |")


def print_comparisons(results):
    print("| test | type | peer | attend, tok/s | peer, tok/s | ratio | per round |")
    print("|---|---|---|---:|---:|---:|---:|")
    for dtype, programs in results:
        attend = programs["attend"]
        for test in attend[0]:
            if test.endswith(MAPS):
                comparison(dtype, test, attend, "attend without maps", attend, test.removesuffix(MAPS))
            for program in sorted(programs):
                peer = programs[program]
                if program != "attend" and test in peer[0]:
                    theirs = peer[0][test]["dtype"]
                    name = program if theirs == dtype else f"{program}, {theirs}"
                    comparison(dtype, test, attend, name, peer, test)


def print_shares(results):
    """Generation against the speed at which the memory can be read."""
    print("| test | type | attend, tok/s | MB a token | GB/s from memory | share |")
    print("|---|---|---:|---:|---:|---:|")
    for dtype, programs in results:
        attend = programs["attend"]
        for test, row in attend[0].items():
            if test.startswith("tg") and not test.endswith(MAPS):
                shares = [tests[test]["bandwidth_share"] for tests in attend]
                bandwidth = statistics.median(tests[test]["memory_bandwidth"] for tests in attend)
                print(
                    f"| {test} | {dtype} | {median(attend, test):.1f} | {row['bytes_per_token'] / 1e6:.1f} "
                    f"| {bandwidth / 1e9:.1f} | {100 * statistics.median(shares):.0f} % |"
                )


def print_canary(folder):
    rounds = {}
    for path in folder.glob("canary-*.txt"):
        rounds[int(path.stem.rsplit("-", 1)[1])] = [float(line) for line in path.read_text().split()]
    parts = [f"{min(speeds):.0f} to {max(speeds):.0f}" for _, speeds in sorted(rounds.items())]
    print(f"The canary, GFLOP/s, round by round: {', '.join(parts)}.")
    fastest = max(max(speeds) for speeds in rounds.values())
    slow = [str(number) for number, speeds in sorted(rounds.items()) if min(speeds) < 0.9 * fastest]
    if slow:
        print(f"The machine was slowed in rounds {', '.join(slow)}: measure again when it is idle.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="where the results are")
    folder = parser.parse_args().folder

    order = ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1"]
    results = sorted(read_folder(folder).items(), key=lambda item: order.index(item[0]))
    print_comparisons(results)
    print()
    print_shares(results)
    print()
    print_canary(folder)


if __name__ == "__main__":
    main()
