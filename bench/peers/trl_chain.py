#!/usr/bin/env python3
"""The demo's task by TRL (GRPOTrainer), for a curve of reward over time beside ours:

    python3 bench/peers/trl_chain.py --model runs/demo/crowd --data runs/demo/data/train.jsonl --out trl.jsonl [--steps 20]

The same model and prompts, the settings of configs/demo.cfg as far as TRL has them (Clip-Higher, token-level loss, soft
overlong punishment as a second reward function, two updates a step, bf16 products with f32 weights); TRL has no dynamic
sampling, so ours runs with algorithm.filter_groups = false: both draw steps x prompts x group responses. Writes a line a
step: seconds since training began, share of right responses. bench/peers/chain_picture.py draws both.
Needs: pip install torch transformers trl datasets.
"""
import argparse, json, os, re, tempfile, time

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--model", required=True)
ap.add_argument("--data", required=True)
ap.add_argument("--out", required=True)
ap.add_argument("--steps", type=int, default=20)
ap.add_argument("--prompts", type=int, default=32)
ap.add_argument("--group", type=int, default=16)
ap.add_argument("--updates", type=int, default=2)
ap.add_argument("--lr", type=float, default=3e-4)
ap.add_argument("--limit", type=int, default=48, help="tokens of a response")
ap.add_argument("--buffer", type=int, default=12, help="tokens before the limit, over which the punishment grows")
ap.add_argument("--seed", type=int, default=1)
a = ap.parse_args()

cuda = torch.cuda.is_available()
tokenizer = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
with open(a.data) as f:
    rows = [json.loads(line) for line in f][: a.prompts * a.steps]
out = open(a.out, "w", buffering=1)
begin = None


def right(text, answer):
    found = re.findall(r"(?i)Answer\s*:\s*([^\n]+)", text[-300:])
    return bool(found) and found[-1].strip() == answer


def correctness(completions, answer, **_):
    """+1 right, -1 wrong, as math_dapo; called once a step with all of its responses."""
    ok = [right(text, want) for text, want in zip(completions, answer)]
    out.write(json.dumps({"seconds": time.time() - begin, "acc": sum(ok) / len(ok), "responses": len(ok)}) + "\n")
    return [1.0 if k else -1.0 for k in ok]


def overlong(completion_ids, **_):
    """Equation 13 of arXiv 2503.14476."""
    return [max(-1.0, min(0.0, -(len(ids) - (a.limit - a.buffer)) / a.buffer)) for ids in completion_ids]


mini_batch = a.prompts * a.group // a.updates
config = GRPOConfig(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=mini_batch, gradient_accumulation_steps=1,
    steps_per_generation=a.updates, num_generations=a.group, max_completion_length=a.limit, learning_rate=a.lr,
    lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.999, max_grad_norm=1.0,
    loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, max_steps=a.steps * a.updates, report_to=[], use_cpu=not cuda,
    bf16=cuda, gradient_checkpointing=False, temperature=1.0, top_k=0, save_strategy="no", logging_steps=1, seed=a.seed,
    mask_truncated_completions=False, dataloader_pin_memory=False, disable_tqdm=True)
trainer = GRPOTrainer(
    model=model, reward_funcs=[correctness, overlong], args=config, processing_class=tokenizer,
    train_dataset=Dataset.from_dict({"prompt": [r["prompt"] for r in rows], "answer": [r["answer"] for r in rows]}))
begin = time.time()
trainer.train()
out.write(json.dumps({"seconds": time.time() - begin, "end": True}) + "\n")
