#!/usr/bin/env python3
"""Losses, gradients and advantages of the presets beside DAPO, from verl's and TRL's own functions.

    python3 tests/goldens/objectives/make.py VERL       (pip install torch transformers trl tensordict ray omegaconf codetiming)

VERL: a checkout of github.com/volcengine/verl at b178a3c (January 2026). Writes objectives.jsonl; one case a line. The
inputs are float32 values, the results computed in float64.

kind loss: a mini-batch with the settings of a preset: loss and d loss / d log-prob. kind kl: one token's KL and its
derivative. kind head: loss with KL and entropy bonus, and its gradient by the logits. kind advantage: of a step's responses.
"""
import collections
import json
import pathlib
import random
import sys
import types

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "semantics"))
from make import import_verl, mask_of  # noqa: E402

SHAPES = [[6, 6, 6], [1], [5, 7, 2], [1, 1, 8, 4]]  # lengths of the responses


def short(values):
    """Nine digits give a float back."""
    return [short(v) if isinstance(v, list) else float(f"{v:.9g}") for v in values]


def verl_loss(name, low, high, mode, kl=None):
    """verl's policy loss of this name plus (kind, coefficient) of its KL, as dp_actor adds them."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    def loss(log_prob, old, ref, advantage, mask, width):
        info = dict(loss_scale_factor=width) if mode == "seq-mean-token-sum-norm" else {}
        settings = dict(clip_ratio=low, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=1e9, global_batch_info=info)
        config = OmegaConf.create(settings)
        if name in ("gspo", "cispo"):  # they ask for their own class
            config = ActorConfig(strategy="fsdp", ppo_micro_batch_size_per_gpu=1, rollout_n=1, **settings)
        function = core_algos.compute_policy_loss_reinforce if name == "reinforce" else core_algos.get_policy_loss_fn(name)
        got, _ = function(old, log_prob, advantage[:, None].expand(log_prob.shape), mask, mode, config)
        if kl:
            got = got + kl[1] * core_algos.agg_loss(core_algos.kl_penalty(log_prob, ref, kl[0]), mask, mode, **info)
        return got

    return loss


def trl_loss(loss_type, low, high, beta=0.0, level="token"):
    """TRL's own _compute_loss on a table of log-probs."""
    import torch
    from trl import GRPOTrainer

    def loss(log_prob, old, ref, advantage, mask, width):
        same = lambda x, **_: x
        me = types.SimpleNamespace(
            _get_per_token_logps_and_entropies=lambda *a, **k: (log_prob, torch.zeros_like(log_prob), None),
            aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
            importance_sampling_level=level, beta=beta, loss_type=loss_type, epsilon_low=low, epsilon_high=high,
            args=types.SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False), use_vllm=False,
            vllm_importance_sampling_correction=False, model=types.SimpleNamespace(training=True),
            current_gradient_accumulation_steps=1, max_completion_length=width, _entropy_bonus_enabled=False,
            accelerator=types.SimpleNamespace(gather=same, reduce=same, num_processes=1),
            _metrics=dict(train=collections.defaultdict(list)))
        ids = torch.ones_like(mask)
        return GRPOTrainer._compute_loss(me, None, dict(
            prompt_ids=ids[:, :1], prompt_mask=ids[:, :1], completion_ids=ids, completion_mask=mask, advantages=advantage,
            old_per_token_logps=old, ref_per_token_logps=ref, num_items_in_batch=mask.sum().double()))

    return loss


def losses(generator):
    import torch
    import trl

    verl, other = "verl b178a3c ", f"TRL {trl.__version__} "
    cases = [
        ("grpo", verl + "vanilla, k3", 0.3, verl_loss("vanilla", 0.2, 0.2, "seq-mean-token-mean", ("k3", 0.04))),
        ("grpo", other + "grpo, beta", 0.3, trl_loss("grpo", 0.2, 0.2, beta=0.04)),
        ("dr_grpo", other + "dr_grpo", 0.3, trl_loss("dr_grpo", 0.2, 0.2)),
        ("gspo", verl + "gspo", 1e-3, verl_loss("gspo", 3e-4, 4e-4, "seq-mean-token-mean")),
        ("gspo", other + "grpo by sequence", 1e-3, trl_loss("grpo", 3e-4, 4e-4, level="sequence")),
        ("cispo", verl + "cispo", 1.5, verl_loss("cispo", 1.0, 4.0, "token-mean")),
        ("cispo", other + "cispo", 1.5, trl_loss("cispo", 0.2, 5.0)),
        ("rloo", verl + "reinforce, k2", 0.3, verl_loss("reinforce", 0.2, 0.2, "seq-mean-token-sum", ("k2", 0.05))),
        ("reinforce_plus_plus", verl + "vanilla", 0.3, verl_loss("vanilla", 0.2, 0.2, "token-mean")),
    ]
    for preset, source, spread, loss in cases:
        for lengths in SHAPES:
            n, width = len(lengths), max(lengths)
            log_prob = -0.1 - torch.rand((n, width), generator=generator) * 5
            old = log_prob + torch.randn((n, width), generator=generator) * spread
            ref = log_prob + torch.randn((n, width), generator=generator) * 0.5
            advantage = torch.randn(n, generator=generator) * 2
            x = log_prob.double().requires_grad_()
            got = loss(x, old.double(), ref.double(), advantage.double(), mask_of(lengths, width), width)
            got.backward()
            yield dict(kind="loss", preset=preset, source=source, lengths=lengths, log_prob=short(log_prob.tolist()),
                       old_log_prob=short(old.tolist()), ref_log_prob=short(ref.tolist()),
                       advantages=short(advantage.tolist()), loss=got.item(), dloss_dlog_prob=short(x.grad.tolist()))


def kls():
    import torch
    from verl.trainer.ppo.core_algos import kl_penalty

    for kind in ("k1", "k2", "k3"):
        # k3: verl caps its value at 10, which stops the gradient; ours stops it where the log-ratio passes 20.
        differences = [0.0, 1e-3, -1e-3, 0.5, -0.5, 2.0, -2.0, 8.0] + ([-9.0, 30.0] if kind != "k3" else [])
        rows = []
        for d in differences:
            log_prob = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
            ref = torch.tensor([-3.0 - d]).double()
            value = kl_penalty(log_prob, ref, kind)
            value.sum().backward()
            rows.append(short([-3.0, ref.item(), value.item(), log_prob.grad.item()]))
        yield dict(kind="kl", estimate=kind, source="verl b178a3c kl_penalty", rows=rows)
    rows = []
    for d in (0.25, -4.0, -9.0, 12.0):  # TRL's is not capped
        log_prob = torch.tensor([[-3.0]], dtype=torch.float64, requires_grad=True)
        ref = torch.tensor([[-3.0 - d]]).double()
        value = trl_loss("grpo", 0.2, 0.2, beta=1.0)(log_prob, log_prob.detach(), ref, torch.zeros(1).double(),
                                                      mask_of([1], 1), 1)
        value.backward()
        rows.append(short([-3.0, ref.item(), value.item(), log_prob.grad.item()]))
    yield dict(kind="kl", estimate="k3", source="TRL beta", rows=rows)


def heads(generator):
    """Policy loss + KL - entropy bonus, aggregated as verl's dp_actor does, down to the logits."""
    import torch
    from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
    from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

    rows, vocabulary = 6, 20
    for temperature, kind, kl_coef, entropy_coef in ((1.0, "k3", 0.0, 0.3), (0.7, "k3", 0.4, 0.0), (1.3, "k2", 0.2, 0.1),
                                                     (1.0, "k1", 0.2, 0.05)):
        logits = 2 * torch.randn((1, rows, vocabulary), generator=generator)
        targets = torch.randint(vocabulary, (1, rows), generator=generator)
        x = logits.double().requires_grad_()
        scaled = x / temperature
        log_prob, entropy = logprobs_from_logits(scaled, targets), entropy_from_logits(scaled)
        old = (log_prob.detach() + torch.tensor([[0.0, 0.1, -0.1, 0.5, -0.5, -3.0]])).float()
        ref = (log_prob.detach() + torch.tensor([[0.3, -0.2, 0.0, 1.0, -0.7, 0.1]])).float()
        advantage = torch.tensor([[1.0, -0.5, 2.0, 1.0, 1.0, -1.0]])
        mask = torch.ones(1, rows)
        loss = verl_loss("vanilla", 0.2, 0.28, "token-mean")(log_prob, old.double(), None, advantage[0].double()[:1], mask,
                                                              rows)
        loss = loss + kl_coef * agg_loss(kl_penalty(log_prob, ref.double(), kind), mask, "token-mean")
        loss = loss - entropy_coef * agg_loss(entropy, mask, "token-mean")
        loss.backward()
        yield dict(kind="head", source="verl b178a3c vanilla + kl_penalty - entropy_from_logits", temperature=temperature,
                   estimate=kind, kl_coef=kl_coef, entropy_coef=entropy_coef, logits=short(logits.flatten().tolist()),
                   targets=targets.flatten().tolist(), old_log_prob=short(old.flatten().tolist()),
                   ref_log_prob=short(ref.flatten().tolist()), advantage=advantage[0, 0].item(), loss=loss.item(),
                   dlogits=short(x.grad.flatten().tolist()))


def advantages():
    import numpy
    import torch
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    draw = random.Random(20263)
    presets = dict(grpo="grpo", dr_grpo="grpo", rloo="rloo", reinforce_plus_plus="reinforce_plus_plus_baseline")
    presets["adv_estimator"] = "reinforce_plus_plus"  # of no preset
    for preset, name in presets.items():
        for groups, size in ((1, 4), (3, 2), (4, 8)):
            n = groups * size
            rewards = [draw.choice([1.0, -1.0, -1.5, 0.25]) for _ in range(n)]
            tokens = [draw.randint(1, 9) for _ in range(n)]
            mask = mask_of(tokens, max(tokens))
            scores = torch.zeros(n, max(tokens), dtype=torch.float64)
            for i, reward in enumerate(rewards):
                scores[i, tokens[i] - 1] = reward
            got, _ = get_adv_estimator_fn(name)(
                token_level_rewards=scores, response_mask=mask.double(), index=numpy.arange(n) // size,
                norm_adv_by_std_in_grpo=preset == "grpo", config=OmegaConf.create(dict(gamma=1.0)))
            yield dict(kind="advantage", preset=preset, estimator=name, source="verl b178a3c " + name, group=size,
                       rewards=rewards, tokens=tokens, advantages=short(got[:, 0].tolist()))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    import_verl(sys.argv[1])
    import torch

    generator = torch.Generator().manual_seed(20263)
    rows = [*losses(generator), *kls(), *heads(generator), *advantages()]
    (HERE / "objectives.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    print(f"objectives.jsonl: {len(rows)} cases")


if __name__ == "__main__":
    main()
