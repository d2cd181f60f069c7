#!/usr/bin/env python3
"""Reference vectors of DAPO's arithmetic, computed by running the functions of verl, TRL, transformers and PyTorch.

    python3 tests/goldens/semantics/make.py VERL_PUBLISHED VERL_JANUARY

The arguments are checkouts of github.com/volcengine/verl: 4f80e465, the commit of DAPO's published run, and b178a3c of
January 2026. Needs torch, transformers, trl, tensordict, ray, omegaconf, codetiming (pip); no GPU. Each file begins
with a line that says what it holds and which versions computed it.
"""
import importlib.machinery
import importlib.util
import itertools
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import types

HERE = pathlib.Path(__file__).resolve().parent


def write(name, header, rows):
    with open(HERE / name, "w") as f:
        for row in [header, *rows]:
            f.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(f"{name}: {len(rows)} cases")


def f32(tensor):
    """Numbers with the 9 digits that give a float back."""
    return [float(f"{x:.9g}") for x in tensor.flatten().tolist()]


def import_verl(folder):
    sys.path.insert(0, folder)
    import torch
    import transformers

    # verl of that time wants names that are not needed here: flash attention, and a class since renamed.
    if importlib.util.find_spec("flash_attn") is None:
        flash, padding = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.bert_padding")
        flash.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
        for name in ("pad_input", "unpad_input", "rearrange", "index_first_axis"):
            setattr(padding, name, None)
        sys.modules.update({"flash_attn": flash, "flash_attn.bert_padding": padding})
    if not hasattr(transformers, "AutoModelForVision2Seq"):
        transformers.AutoModelForVision2Seq = transformers.AutoModelForImageTextToText
    torch.cuda.current_device = lambda: "cpu"
    import verl  # noqa: F401


def mask_of(lengths, width):
    import torch

    return (torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]).to(torch.int64)


# Lengths of the responses of a mini-batch; 0: masked out. Micro-batches: a limit in tokens (verl balances them itself),
# or a number of responses each.
LENGTHS = [
    ([5, 1, 10, 3], 12),
    ([5, 0, 10, 3], 12),
    ([50] * 8 + [400] * 2, 400),
    ([7, 7, 7, 7, 7, 7], 14),
    ([1, 2, 3, 4, 5, 6, 7, 8], 9),
    ([0, 0, 6, 2, 0, 9, 1, 4], 10),
    ([12, 1, 1, 1], 12),
    ([4, 4, 0, 0], "2"),
    ([3, 9, 2, 8, 1, 7], "2"),
    ([3, 9, 2, 8, 1, 7], "3"),
    ([6], 8),
]


def run_update_policy(lengths, limit):
    """verl's own update_policy on a model whose log-probs are a table; returns each response's micro-batch and weight.

    Advantages are -1 and every ratio 1, so that the gradient of a token is its weight in the loss."""
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.workers.actor.dp_actor import DataParallelPPOActor

    n, width = len(lengths), max(lengths)
    config = OmegaConf.create(dict(
        use_torch_compile=False, ulysses_sequence_parallel_size=1, ppo_mini_batch_size=n, ppo_epochs=1, grad_clip=1.0,
        use_kl_loss=False, entropy_coeff=0.0, clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28,
        clip_ratio_c=10.0, loss_agg_mode="token-mean", use_dynamic_bsz=not isinstance(limit, str)))
    if config.use_dynamic_bsz:
        config.ppo_max_token_len_per_gpu = max(limit, width)
    else:
        config.ppo_micro_batch_size_per_gpu = int(limit)

    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.log_prob = torch.nn.Parameter(torch.full((n, width), -1.0, dtype=torch.float64))

    class Actor(DataParallelPPOActor):
        micro_batches = []

        def _forward_micro_batch(self, micro_batch, temperature):
            rows = micro_batch["input_ids"][:, 0]
            self.micro_batches.append(rows.tolist())
            log_prob = self.actor_module.log_prob[rows]
            return torch.zeros_like(log_prob), log_prob

        def _optimizer_step(self):
            self.gradient = self.actor_module.log_prob.grad.clone()
            return self.gradient.norm()

    table = Table()
    actor = Actor(config, table, torch.optim.SGD(table.parameters(), lr=0.0))
    actor.micro_batches = []
    mask = mask_of(lengths, width)
    ids = torch.arange(n)[:, None].repeat(1, width)
    data = DataProto.from_dict(tensors=dict(
        responses=ids, input_ids=ids, attention_mask=mask, position_ids=ids,
        old_log_probs=torch.full((n, width), -1.0, dtype=torch.float64),
        advantages=torch.full((n, width), -1.0, dtype=torch.float64)))
    data.meta_info["temperature"] = 1.0
    actor.update_policy(data)
    where = [next(k for k, rows in enumerate(actor.micro_batches) if i in rows) for i in range(n)]
    weights = [actor.gradient[i, 0].item() if lengths[i] else 0.0 for i in range(n)]
    for i, length in enumerate(lengths):
        assert (actor.gradient[i, :length] == weights[i]).all() and (actor.gradient[i, length:] == 0).all()
    return where, weights


def published(out):
    """Parts that verl 4f80e465 computes."""
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
    from verl.workers.reward_manager.dapo import DAPORewardManager

    for lengths, limit in LENGTHS:
        where, weights = run_update_policy(lengths, limit)
        out("loss_weights", dict(source="verl 4f80e465 update_policy", mode="token-mean-per-micro-batch",
                                 tokens=lengths, micro_batch=where, responses=len(lengths), weights=weights))

    class Tokenizer:
        eos_token = "<end>"

        def decode(self, ids, skip_special_tokens=True):
            return str(len(ids))

    for max_length, buffer, factor in [(20480, 4096, 1.0), (48, 12, 1.0), (48, 12, 0.5), (100, 100, 1.0), (7, 3, 2.0)]:
        start = max_length - buffer
        lengths = sorted({1, start - 1, start, start + 1, start + buffer // 2, max_length - 1, max_length} - {-1, 0})
        for score in (1.0, -1.0):
            manager = DAPORewardManager(
                Tokenizer(), 0, compute_score=lambda **_: dict(score=score, acc=score > 0), max_resp_len=max_length,
                overlong_buffer_cfg=OmegaConf.create(dict(enable=True, len=buffer, penalty_factor=factor, log=False)))
            mask = mask_of(lengths, max_length)
            data = DataProto.from_dict(
                tensors=dict(prompts=torch.ones(len(lengths), 1, dtype=torch.int64), responses=torch.ones_like(mask),
                             attention_mask=torch.cat([torch.ones(len(lengths), 1, dtype=torch.int64), mask], 1)),
                non_tensors=dict(reward_model=[dict(ground_truth="")] * len(lengths), data_source=["x"] * len(lengths)))
            rewards = manager(data)
            rewards = rewards["reward_tensor"] if isinstance(rewards, dict) else rewards
            out("rewards", dict(kind="overlong", source="verl 4f80e465 DAPORewardManager", max_length=max_length,
                                buffer=buffer, factor=factor, score=score, lengths=lengths,
                                rewards=f32(rewards.sum(-1))))

    random.seed(1)
    for groups in [[1], [1, 1, 1], [2, 1], [3, 16], [16]]:
        rewards, index = [], []
        for g, size in enumerate(groups):
            rewards += [random.choice([1.0, -1.0, -1.5, 0.25]) for _ in range(size)]
            index += [g] * size
        got, _ = compute_grpo_outcome_advantage(torch.tensor(rewards)[:, None], torch.ones(len(rewards), 1), index)
        out("rewards", dict(kind="advantage", source="verl 4f80e465 compute_grpo_outcome_advantage", by_std=True,
                            group=index, rewards=rewards, advantages=f32(got)))


CLIPS = [(0.2, 0.28, 10.0), (0.2, 0.2, 3.0), (0.1, 0.5, 1.5)]


def token_cases(low, high, c, clamp):
    """(old, new, advantage) on both sides of every border, and far beyond."""
    ratios = [b * (1 + e) for b in (1 - low, 1 + high, c) for e in (-0.1, -3e-6, 3e-6, 0.1)] + [1.0, 0.999, 1e-3, 300.0]
    pairs = [(-5.0, -5.0 + math.log(r)) for r in ratios]
    if clamp:
        # Not the borders themselves: whether torch.clamp passes a gradient there depends on its version.
        pairs += [(-24.999, -5.0), (-5.0, -24.999), (-25.001, -5.0), (-5.0, -25.001), (-101.0, -1.0), (-1.0, -101.0)]
    return [(old, new, a) for old, new in pairs for a in (1.0, -1.0, 0.25, -3.75, 0.0)]


def january(out):
    """Parts that verl of January 2026 computes."""
    import numpy
    import torch
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import agg_loss, compute_grpo_outcome_advantage, compute_policy_loss_vanilla
    from verl.trainer.ppo.metric_utils import calc_maj_val
    from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

    for mode in ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum"):
        for lengths, _ in LENGTHS:
            loss = torch.zeros(len(lengths), max(lengths), dtype=torch.float64, requires_grad=True)
            agg_loss(loss, mask_of(lengths, max(lengths)), mode).backward()
            out("loss_weights", dict(source="verl b178a3c agg_loss", mode=mode, tokens=lengths,
                                     weights=loss.grad[:, 0].tolist()))
    # Divides by the padded length alone: called on one response at a time and scaled by 1 / responses, as verl's actor
    # does with micro-batches of one response.
    for lengths, _ in LENGTHS:
        width, weights = max(lengths) + 3, []
        for length in lengths:
            loss = torch.zeros(1, width, dtype=torch.float64, requires_grad=True)
            (agg_loss(loss, mask_of([length], width), "seq-mean-token-sum-norm") / len(lengths)).backward()
            weights.append(loss.grad[0, 0].item())
        out("loss_weights", dict(source="verl b178a3c agg_loss a response", mode="seq-mean-token-sum-norm",
                                 tokens=lengths, max_length=width, weights=weights))

    for low, high, c in CLIPS:
        config = OmegaConf.create(dict(clip_ratio=low, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=c,
                                       global_batch_info=dict(loss_scale_factor=1)))
        rows = []
        for old, new, advantage in token_cases(low, high, c, clamp=True):
            one = lambda x: torch.tensor([[x]], dtype=torch.float32)
            log_prob = one(new).requires_grad_()
            loss, metrics = compute_policy_loss_vanilla(one(old), log_prob, one(advantage), torch.ones(1, 1),
                                                        "seq-mean-token-sum-norm", config)
            loss.backward()
            clipped, lower = metrics["actor/pg_clipfrac"] > 0.5, metrics["actor/pg_clipfrac_lower"] > 0.5
            rows.append(f32(torch.stack([t.detach().flatten()[0] for t in (one(old), log_prob, one(advantage), loss,
                                                                           log_prob.grad)]))
                        + [float(f"{metrics['actor/ppo_kl']:.9g}"), int(clipped), int(lower)])
        out("token_loss", dict(source="verl b178a3c compute_policy_loss_vanilla", clip_low=low, clip_high=high,
                               dual_clip=c, rows=rows))

    torch.manual_seed(5)
    for temperature in (1.0, 0.7):
        rows, vocabulary = 6, 20
        config = OmegaConf.create(dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=10.0,
                                       global_batch_info={}))
        logits = (2 * torch.randn(1, rows, vocabulary)).requires_grad_()
        targets = torch.randint(vocabulary, (1, rows))
        scaled = logits / temperature  # as in dp_actor's _forward_micro_batch
        log_prob, entropy = logprobs_from_logits(scaled, targets), entropy_from_logits(scaled)
        old = log_prob.detach() + torch.tensor([[0.0, 0.1, -0.1, 0.5, -0.5, -3.0]])
        advantage = torch.tensor([[1.0, -0.5, 2.0, 1.0, 1.0, -1.0]])
        loss, _ = compute_policy_loss_vanilla(old, log_prob, advantage, torch.ones(1, rows), "token-mean", config)
        loss.backward()
        out("head", dict(source="verl b178a3c logprobs_from_logits, entropy_from_logits, compute_policy_loss_vanilla",
                         temperature=temperature, logits=f32(logits.detach()), targets=targets.flatten().tolist(),
                         old_log_prob=f32(old), advantage=f32(advantage), log_prob=f32(log_prob.detach()),
                         entropy=f32(entropy.detach()), loss=loss.item(), dlogits=f32(logits.grad)))

    random.seed(2)
    for by_std in (True, False):
        for groups in [[1], [2, 1], [5, 3], [16]]:
            rewards, index = [], []
            for g, size in enumerate(groups):
                rewards += [random.choice([1.0, -1.0, -1.5, 0.25]) for _ in range(size)]
                index += [g] * size
            got, _ = compute_grpo_outcome_advantage(torch.tensor(rewards)[:, None], torch.ones(len(rewards), 1),
                                                    numpy.array(index), norm_adv_by_std_in_grpo=by_std)
            out("rewards", dict(kind="advantage", source="verl b178a3c compute_grpo_outcome_advantage", by_std=by_std,
                                group=index, rewards=rewards, advantages=f32(got)))

    # verl's vote goes to whichever of the tied answers came first; its mean over all orders depends on none.
    random.seed(3)
    for size in (1, 2, 3, 4, 5, 6):
        for _ in range(6):
            votes = [dict(pred=random.choice("abc"[:1 + size // 2]), acc=random.random() < 0.4) for _ in range(size)]
            orders = [calc_maj_val([votes[i] for i in order], "pred", "acc")
                      for order in itertools.permutations(range(size))]
            out("majority", dict(source="verl b178a3c calc_maj_val, mean over all orders",
                                 answers=[v["pred"] for v in votes], right=[int(v["acc"]) for v in votes],
                                 majority=sum(orders) / len(orders)))


def trl_loss(log_prob, old, advantage, mask, loss_type, max_length, low=0.2, high=0.28, delta=None):
    """TRL's own _compute_loss on a table of log-probs."""
    import collections

    import torch
    from trl import GRPOTrainer

    same = lambda x, **_: x
    me = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_prob, torch.zeros_like(log_prob), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=0.0, loss_type=loss_type, epsilon_low=low, epsilon_high=high,
        args=types.SimpleNamespace(delta=delta, steps_per_generation=1), use_vllm=False,
        vllm_importance_sampling_correction=False, model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, max_completion_length=max_length, _entropy_bonus_enabled=False,
        accelerator=types.SimpleNamespace(gather=same, reduce=same, num_processes=1),
        _metrics=dict(train=collections.defaultdict(list)))
    ids = torch.ones_like(mask)
    return GRPOTrainer._compute_loss(me, None, dict(prompt_ids=ids[:, :1], prompt_mask=ids[:, :1], completion_ids=ids,
                                                    completion_mask=mask, advantages=advantage,
                                                    old_per_token_logps=old))


def libraries(out):
    """Parts that TRL, transformers and PyTorch compute."""
    import torch
    import transformers
    import trl
    from trl.rewards import get_soft_overlong_punishment

    for loss_type, mode in (("dr_grpo", "seq-mean-token-sum-norm"), ("bnpo", "token-mean")):
        for lengths, _ in LENGTHS:
            width = max(lengths)
            log_prob = torch.full((len(lengths), width), -1.0, dtype=torch.float64, requires_grad=True)
            loss = trl_loss(log_prob, log_prob.detach(), -torch.ones(len(lengths), dtype=torch.float64),
                            mask_of(lengths, width), loss_type, max_length=width + 5)
            loss.backward()
            out("loss_weights", dict(source=f"TRL {trl.__version__} {loss_type}", mode=mode, tokens=lengths,
                                     max_length=width + 5, weights=log_prob.grad[:, 0].tolist()))

    for low, high, c in CLIPS:
        rows = []
        for old, new, advantage in token_cases(low, high, c, clamp=False):
            log_prob = torch.tensor([[new]], requires_grad=True)
            loss = trl_loss(log_prob, torch.tensor([[old]]), torch.tensor([advantage]),
                            torch.ones(1, 1, dtype=torch.int64), "dr_grpo", 1, low, high, delta=c)
            loss.backward()
            rows.append(f32(torch.tensor([old, new, advantage, loss.item(), log_prob.grad.item()])))
        out("token_loss", dict(source=f"TRL {trl.__version__} dr_grpo with delta", clip_low=low, clip_high=high,
                               dual_clip=c, rows=rows))

    for max_length, buffer in ((48, 12), (20480, 4096)):
        lengths = [1, max_length - buffer, max_length - buffer + 1, max_length - 1, max_length, max_length + 1, 2 * max_length]
        penalty = get_soft_overlong_punishment(max_length, buffer)([[0] * n for n in lengths])
        out("rewards", dict(kind="overlong", source=f"TRL {trl.__version__} get_soft_overlong_punishment",
                            max_length=max_length, buffer=buffer, factor=1.0, score=0.0, lengths=lengths,
                            rewards=penalty))

    for name in ("constant", "linear", "cosine"):
        for warm, total in ((20, 100), (0, 10), (3, 7), (1, 5)):
            parameter = torch.nn.Parameter(torch.zeros(1))
            optimizer = torch.optim.SGD([parameter], lr=1.0)
            make = getattr(transformers, f"get_{name}_schedule_with_warmup")
            schedule = make(optimizer, warm, *([] if name == "constant" else [total]))
            lr = []
            for _ in range(total + 1):
                lr.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            out("schedules", dict(source=f"transformers {transformers.__version__}", schedule=name, warmup=warm,
                                  total=total, lr=lr))

    torch.manual_seed(4)
    for lr, beta2, eps, decay, max_norm, size in (
            (1e-6, 0.999, 1e-8, 0.1, 1.0, 1.0), (1e-6, 0.999, 1e-8, 0.1, 1.0, 1e-5), (1e-3, 0.98, 1e-8, 0.01, 1.0, 0.1),
            (5e-8, 0.999, 1e-8, 0.1, 0.0, 1e-9), (1e-2, 0.95, 1e-4, 0.3, 0.05, 1.0)):
        n, steps = 24, 4
        w = torch.randn(n) * torch.logspace(-6, 1, n)
        w[:3] = torch.tensor([0.0, 1.0, -1.00390625])  # the last one: half-way between two bf16 numbers
        parameter = torch.nn.Parameter(w.clone())
        optimizer = torch.optim.AdamW([parameter], lr=lr, betas=(0.9, beta2), eps=eps, weight_decay=decay, foreach=False)
        gradients, weights, lrs = [], [], []
        for step in range(steps):
            g = torch.randn(n) * size * torch.logspace(0, -3, n)
            g[step] = 0
            parameter.grad = g.clone()
            if max_norm:
                torch.nn.utils.clip_grad_norm_([parameter], max_norm)
            optimizer.param_groups[0]["lr"] = lr * (step + 1) / steps
            optimizer.step()
            lrs.append(lr * (step + 1) / steps)
            gradients.append(f32(g))
            weights.append(f32(parameter.detach()))
        state = optimizer.state[parameter]
        out("adamw", dict(source=f"torch {torch.__version__.split('+')[0]} optim.AdamW, clip_grad_norm_", lr=lrs, beta1=0.9,
                          beta2=beta2, eps=eps, weight_decay=decay, max_norm=max_norm, before=f32(w),
                          gradients=gradients, after=weights, moment1=f32(state["exp_avg"]),
                          moment2=f32(state["exp_avg_sq"])))


PARTS = {"published": published, "january": january, "libraries": libraries}
FILES = {
    "loss_weights": "weight of one token of each response in the loss of a mini-batch (d loss / d token's loss, by "
                    "autograd); tokens 0: the response is masked out. token-mean-per-micro-batch: verl counts masked "
                    "responses in its micro-batch and in the mini-batch. seq-mean-token-sum-norm: TRL counts them too",
    "token_loss": "rows: old log-prob, log-prob, advantage, loss, d loss / d log-prob; verl's also kl, counted in "
                  "pg_clipfrac, counted in pg_clipfrac_lower",
    "head": "log-probs, entropies and the gradient of the logits (before the temperature) of a token-mean loss",
    "rewards": "overlong: score plus soft overlong punishment at these lengths; advantage: of responses by group",
    "majority": "value of the majority's answer",
    "schedules": "learning rate at HF's step 0, 1, ... for a peak of 1; ours is 1 ahead in the warm-up, so that the first "
                 "step's is not 0",
    "adamw": "master weights after each step; the gradient is clipped by its norm (0: not) before the step",
}


def main():
    if len(sys.argv) == 5:  # a part, in a process of its own: two versions of verl do not go together
        _, part, folder, path, _ = sys.argv
        with open(path, "w") as f:
            if folder:
                import_verl(folder)
            PARTS[part](lambda name, row: f.write(json.dumps([name, row]) + "\n"))
        return
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rows = {name: [] for name in FILES}
    for part, folder in (("published", sys.argv[1]), ("january", sys.argv[2]), ("libraries", "")):
        with tempfile.NamedTemporaryFile() as f:
            subprocess.run([sys.executable, __file__, part, folder, f.name, "part"], check=True, stdout=subprocess.DEVNULL)
            for name, row in map(json.loads, open(f.name)):
                rows[name].append(row)
    for name, what in FILES.items():
        write(f"{name}.jsonl", dict(what=what, made_by="tests/goldens/semantics/make.py"), rows[name])


if __name__ == "__main__":
    main()
