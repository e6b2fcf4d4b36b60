"""What scripts/check-dumps runs: kills, a full disk, and memory.

    scripts/check_dumps.py SMOLLM2_FOLDER all|kills|disk|memory ...
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTEND = ROOT / "target/release/attend"
KILLS = 200
# Above a run without recording.
MEMORY = 64 << 20


def command(*args):
    return [str(arg) for arg in (ATTEND, *args)]


def ids(count, vocabulary, seed=1):
    rng = random.Random(seed)
    return ",".join(str(rng.randrange(3, vocabulary)) for _ in range(count))


def whole_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def checked_steps(dump):
    """The steps that `dump check` finds, all of them in order."""
    result = subprocess.run(command("dump", "check", dump), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split("whole: ")[1].split()[0])


def kills(work):
    rng = random.Random()
    dump = work / "dump"
    # A prompt whose step is written in pieces, and a few hundred steps behind it.
    args = command("generate", "--prompt-ids", ids(300, 4096), "-n", 200, "--temp", 0.8, "--attention", dump, "--overwrite")
    started = time.monotonic()
    subprocess.run(args, check=True, capture_output=True)
    longest = time.monotonic() - started
    counts, early = [], 0
    while len(counts) < KILLS:
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.wait()
        if not (dump / "manifest.json").exists():
            early += 1
            assert early < 5 * KILLS, "nothing is ever recorded"
            continue
        steps = checked_steps(dump)
        assert steps == whole_lines(dump / "steps.jsonl"), "dump check does not see the last whole step"
        counts.append(steps)
    inside = sum(0 < steps < 200 for steps in counts)
    print(f"check-dumps: {KILLS} kills at {len(set(counts))} different steps, {counts.count(0)} within the prompt's step, "
          f"{inside} behind it: every dump is whole up to its last line")
    assert inside > KILLS // 10, "hardly any kill has hit a recording"


def full_disk(work):
    """Runs itself again where it may mount a small disk."""
    inside = [sys.executable, __file__, "-", "small-disk", str(work)]
    if os.geteuid() == 0 and subprocess.run(inside).returncode == 0:
        return
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run(namespace + inside).returncode != 0:
        sys.exit("check-dumps: no small disk can be mounted here: be root, or allow user namespaces")


def small_disk(work):
    disk = pathlib.Path(work) / "disk"
    disk.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        print(f"check-dumps: {mounted.stderr.strip()}")
        sys.exit(3)
    try:
        for prompt, new, kept in (300, 200, range(1, 200)), (600, 2, range(0, 1)):
            dump = disk / "dump"
            shutil.rmtree(dump, ignore_errors=True)
            args = command("generate", "--prompt-ids", ids(prompt, 4096), "-n", new, "--temp", 0.8, "--attention", dump)
            refused = subprocess.run(args, capture_output=True, text=True)
            assert refused.returncode == 1 and "--force" in refused.stderr, refused.stderr
            assert not dump.exists(), "the refused run has begun a dump"
            full = subprocess.run(args + ["--force"], capture_output=True, text=True)
            assert full.returncode == 1, f"exit code {full.returncode}: {full.stderr}"
            assert "No space left" in full.stderr and str(dump) in full.stderr, full.stderr
            assert "panicked" not in full.stderr, full.stderr
            steps = checked_steps(dump)
            assert steps in kept, f"{steps} steps are kept"
            assert f"{steps} whole step" in full.stderr, full.stderr
            left = [path.name for path in (dump / "steps").iterdir()]
            assert len(left) == steps, f"left over: {left}"
            print(f"check-dumps: a disk that fills up during {prompt} + {new} tokens keeps {steps} whole steps")
    finally:
        subprocess.run(["umount", disk], check=True)


def peak(args):
    """The most memory that a run held, in bytes, and its seconds."""
    started = time.monotonic()
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stderr = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, stderr
    return usage.ru_maxrss * 1024, time.monotonic() - started


def bounded(what, args, dump, kinds):
    plain, seconds = peak(args)
    print(f"check-dumps: {what}: {plain / 1e6:.0f} MB, {seconds:.1f} s without recording")
    for kind in kinds:
        shutil.rmtree(dump, ignore_errors=True)
        recording, seconds = peak(args + ["--attention", str(dump), *kind])
        checked_steps(dump)
        above = recording - plain
        print(f"check-dumps: {' '.join(kind)}: {above / 2**20:.1f} MiB above that, {seconds:.1f} s")
        assert above < MEMORY, f"{what} {kind}: {above / 2**20:.1f} MiB above a run without recording"
        shutil.rmtree(dump)


def memory(work, smollm2):
    dump = work / "dump"
    if (smollm2 / "f32").is_dir():
        args = command("generate", "-m", smollm2 / "f32", "--prompt-ids", ids(4096, 49152), "-n", 2, "--temp", 0)
        f16 = ["--attention-dtype", "f16"]
        bounded("SmolLM2, 4,096 tokens", args, dump, [
            ["--layers", "0,14,29", *f16], ["--attention-kind", "stats"], ["--attention-kind", "top:16"],
            ["--queries", "last"]])
    else:
        print(f"check-dumps: SKIPPED: {smollm2} is not there, so SmolLM2's memory is not measured")
    long = work / "long"
    shutil.copytree(ROOT / "models/embedded", long)
    config = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32770}))
    args = command("generate", "-m", long, "--prompt-ids", ids(32768, 100), "-n", 2, "--temp", 0)
    bounded("the embedded model's shape, 32,768 tokens", args, dump,
            [["--attention-kind", "stats"], ["--attention-kind", "top:16"]])


def main():
    smollm2, what = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if what[0] == "small-disk":
        return small_disk(what[1])
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name, run in ("disk", lambda: full_disk(work)), ("kills", lambda: kills(work)), \
                ("memory", lambda: memory(work, smollm2)):
            if name in what or "all" in what:
                run()


main()
