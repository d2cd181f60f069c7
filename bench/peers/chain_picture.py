#!/usr/bin/env python3
"""Reward over time of the demo's task, ours beside TRL's: chain_picture.py RUN/metrics.jsonl trl.jsonl >docs/against_trl.svg

RUN is `./dapo_train configs/demo.cfg --set algorithm.filter_groups=false`, trl.jsonl comes from trl_chain.py.
"""
import json, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from curves import panel, picture


def rows_of(path):
    return [json.loads(line) for line in open(path)]


def ours(path):
    seconds, curve = 0.0, {}
    for r in (r for r in rows_of(path) if "reward/acc" in r):
        seconds += r["seconds"]
        curve[seconds] = [100 * r["reward/acc"]]
    return curve


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    curves = [{r["seconds"]: [100 * r["acc"]] for r in rows_of(sys.argv[2]) if "acc" in r}, ours(sys.argv[1])]
    colors = ["#8a8880", "#2a78d6"]
    same = [{i + 1: v for i, v in enumerate(c.values())} for c in curves]
    print(picture([panel("Right answers of those drawn, by time", curves, 100, range(0, 101, 25), " %", "seconds of training", 10, colors),
                   panel("by step", same, 100, range(0, 101, 25), " %", colors=colors)], ["TRL", "dapo.cu"],
                  "Share of right answers over time and over steps, dapo.cu and TRL", colors), end="")


main()
