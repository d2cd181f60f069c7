#!/usr/bin/env python3
"""One DAPO step, ours against Hugging Face TRL: the two programs alternate, with the same model, prompts and number of tokens.

    python3 bench/peers/compare.py --model DIR --data gsm8k_train.jsonl --prompts 4 --group 8 --new-tokens 128 --dtype bfloat16

Prints each round, then the medians, their ratio and both peaks of memory. Run with a Python that has torch, transformers, trl
and datasets (bench/peers/trl_dapo.py runs with the same Python); `make bench` builds ours.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

here = pathlib.Path(__file__).resolve().parent
ap = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
ap.add_argument("--model", required=True)
ap.add_argument("--data", required=True)
ap.add_argument("--prompts", default="4")
ap.add_argument("--group", default="8")
ap.add_argument("--new-tokens", default="128")
ap.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
ap.add_argument("--steps", default="1", help="steps of one run (a median of 5 rounds is the figure)")
ap.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
ap.add_argument("--micro-batch", default="8", help="of TRL: sequences of one forward and backward pass")
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--ours", default=str(here.parent.parent / "build/release/bench_step"))
a = ap.parse_args()

work = ["--model", a.model, "--data", a.data, "--prompts", a.prompts, "--group", a.group, "--new-tokens", a.new_tokens, "--steps", a.steps, "--device", a.device]
programs = {
    "dapo.cu": [a.ours, *work, "--dtype", {"float32": "f32", "bfloat16": "bf16"}[a.dtype]],
    "trl": [sys.executable, str(here / "trl_dapo.py"), *work, "--dtype", a.dtype, "--micro-batch", a.micro_batch],
}
seconds, peak = {n: [] for n in programs}, {n: [] for n in programs}
for r in range(a.rounds):
    for name, command in programs.items():
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [l for l in done.stdout.splitlines() if l.startswith("{") and '"program"' in l]
        if done.returncode or not lines:
            sys.exit(f"{' '.join(command)}\nfailed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        row = json.loads(lines[-1])
        seconds[name].append(statistics.median(row["step_seconds"]))
        peak[name].append(row["peak_mb"])
        print(f"round {r + 1} {name:8} {seconds[name][-1]:9.3f} s a step {peak[name][-1]:8.0f} MB", flush=True)
median = {n: statistics.median(s) for n, s in seconds.items()}
most = {n: max(p) for n, p in peak.items()}
memory = f"; peak memory {most['dapo.cu']:.0f} MB against {most['trl']:.0f} MB: {most['dapo.cu'] / most['trl']:.2f} of it"
print(f"medians: dapo.cu {median['dapo.cu']:.3f} s, trl {median['trl']:.3f} s: {median['trl'] / median['dapo.cu']:.1f}x faster"
      + memory * (a.device == "cpu"))  # on a GPU ours is the host's memory, TRL's the card's
