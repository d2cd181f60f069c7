#!/usr/bin/env python3
"""Losses of whole batches with their gradients and clip statistics, and advantages of groups, from verl's own functions.

    python3 tests/goldens/loss/make.py VERL       (pip install torch transformers tensordict ray omegaconf codetiming)

VERL: a checkout of github.com/volcengine/verl at b178a3c (January 2026). Writes loss.jsonl; one case a line. The inputs
are float32 values, the results computed in float64.
"""
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "semantics"))
from make import import_verl, mask_of  # noqa: E402

MODES = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
CLIPS = [(0.2, 0.28, 10.0), (0.2, 0.2, 3.0), (0.1, 0.5, 1.5)]
SHAPES = [[6, 6, 6], [1], [5, 0, 7, 2], [0, 3], [1, 1, 8, 4]]  # lengths of the responses; 0: masked out
GROUPS = [[1], [2], [3, 1], [4, 4], [16]]


def short(values):
    """Nine digits give a float back."""
    return [short(v) if isinstance(v, list) else float(f"{v:.9g}") for v in values]


def policy_loss(mode, clips, lengths, generator):
    import torch
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    low, high, c = clips
    n, width = len(lengths), max(lengths)
    shape = (n, width)
    log_prob = -torch.rand(shape, generator=generator) * 8
    # Ratios on both sides of every border, and the identical policy.
    old = (log_prob + torch.randn(shape, generator=generator) * (0, 0.05, 0.4, 2.0)[sum(lengths) % 4]).clamp(max=0)
    advantage = torch.randn(n, generator=generator) * 2
    normalizer = {}
    if mode == "token-mean" and n > 2:  # more tokens in the mini-batch than these
        normalizer = dict(dp_size=1, batch_num_tokens=3 * sum(lengths))
    elif mode != "seq-mean-token-sum-norm" and n > 2:
        normalizer = dict(dp_size=1, global_batch_size=2 * n)
    config = OmegaConf.create(dict(clip_ratio=low, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=c,
                                   global_batch_info=normalizer))
    x = log_prob.double().requires_grad_()
    loss, metrics = compute_policy_loss_vanilla(old.double(), x, advantage.double()[:, None].expand(shape),
                                                mask_of(lengths, width), mode, config)
    loss.backward()
    return dict(kind="policy_loss", log_prob=short(log_prob.tolist()), old_log_prob=short(old.tolist()),
                advantages=short(advantage.tolist()), lengths=lengths, clip_ratio_low=low, clip_ratio_high=high,
                clip_ratio_c=c, loss_agg_mode=mode, normalizer=normalizer, loss=loss.item(),
                dloss_dlog_prob=short(x.grad.tolist()), clipfrac=metrics["actor/pg_clipfrac"],
                clipfrac_lower=metrics["actor/pg_clipfrac_lower"], ppo_kl=metrics["actor/ppo_kl"])


def advantage(sizes, by_std, seed):
    import numpy
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    draw = random.Random(seed)
    index = [g for g, size in enumerate(sizes) for _ in range(size)]
    draw.shuffle(index)
    reward = [draw.choice([1.0, -1.0, -1.5, 0.25]) for _ in index]
    got, _ = compute_grpo_outcome_advantage(torch.tensor(reward, dtype=torch.float64)[:, None],
                                            torch.ones(len(reward), 1), numpy.array(index),
                                            norm_adv_by_std_in_grpo=by_std)
    return dict(kind="advantage", group=index, reward=reward, norm_adv_by_std=by_std,
                advantage=short(got.flatten().tolist()))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    import_verl(sys.argv[1])
    import torch

    generator = torch.Generator().manual_seed(20262)
    rows = [policy_loss(mode, clips, lengths, generator) for mode in MODES for clips in CLIPS for lengths in SHAPES]
    rows += [advantage(sizes, by_std, 100 * i + by_std) for i, sizes in enumerate(GROUPS * 3) for by_std in (True, False)]
    (HERE / "loss.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    print(f"loss.jsonl: {len(rows)} cases")


if __name__ == "__main__":
    main()
