#!/usr/bin/env python3
"""Distributions after temperature, top-k, top-p and min-p, from transformers' own logits processors in float64.

    python3 tests/goldens/sampling/make.py        (pip install torch transformers)

Writes sampling.jsonl: logits (float32 values), the settings, and the probability of each token.
"""
import itertools
import json
import pathlib

import torch
from transformers.generation import logits_process

SETTINGS = [(0, 1.0, 0.0), (1, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.7, 0.0), (0, 0.95, 0.0), (0, 1.0, 0.1), (8, 0.9, 0.02)]
SIZES = [(2, 0.5), (9, 1.0), (40, 3.0)]  # vocabulary, deviation of the logits


def distribution(logits, temperature, top_k, top_p, min_p):
    scores = logits.double()[None]
    chain = [logits_process.TemperatureLogitsWarper(temperature)]
    chain += [logits_process.TopKLogitsWarper(top_k)] if top_k else []
    chain += [logits_process.TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [logits_process.MinPLogitsWarper(min_p)] if min_p > 0 else []
    for process in chain:
        scores = process(None, scores)
    return scores.softmax(-1)[0]


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(20263)
    lines = []
    for (size, deviation), temperature, (top_k, top_p, min_p) in itertools.product(SIZES, (0.3, 0.7, 1.0), SETTINGS):
        logits = torch.randn(size, generator=generator) * deviation
        prob = distribution(logits, temperature, top_k, top_p, min_p)
        lines.append(json.dumps(dict(logits=[float(f"{x:.9g}") for x in logits.tolist()], temperature=temperature,
                                     top_k=top_k, top_p=top_p, min_p=min_p,
                                     prob=[float(f"{p:.9g}") for p in prob.tolist()]), separators=(",", ":")))
    (pathlib.Path(__file__).resolve().parent / "sampling.jsonl").write_text("\n".join(lines) + "\n")
    print(f"sampling.jsonl: {len(lines)} cases")
