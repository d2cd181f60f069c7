#!/usr/bin/env python3
"""TRL's side of bench/peers/compare.py: DAPO steps of Hugging Face TRL (GRPOTrainer, loss_type="dapo").

    python3 bench/peers/trl_dapo.py --model DIR --data FILE.jsonl --prompts P --group G --new-tokens T --steps S --dtype bfloat16 [--device cuda]

Every response is exactly T tokens long and the reward is cheap and varies, so that every group is trained on: the same work
as in bench_step. Prints one JSON line: seconds of each step, peak memory. Needs: pip install torch transformers trl datasets.
"""
import argparse, json, os, resource, tempfile, time

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--data", required=True, help="JSONL rows with a question")
ap.add_argument("--prompts", type=int, default=4)
ap.add_argument("--group", type=int, default=8)
ap.add_argument("--new-tokens", type=int, default=128)
ap.add_argument("--steps", type=int, default=1)
ap.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
ap.add_argument("--micro-batch", type=int, default=8, help="sequences of one forward and backward pass")
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
a = ap.parse_args()

on_gpu = a.device == "cuda"
torch.set_num_threads(a.threads)
tokenizer = AutoTokenizer.from_pretrained(a.model)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype))
with open(a.data) as f:
    rows = [json.loads(line) for line in f][: a.prompts * a.steps]
question = lambda r: r["question"] + ' Put the answer after "####".'
prompts = [[{"role": "user", "content": question(r)}] if tokenizer.chat_template else question(r) for r in rows]


def parity(completions, **_):
    text = lambda c: c[0]["content"] if isinstance(c, list) else c
    return [float(len(text(c)) % 2) for c in completions]


class Clock(TrainerCallback):
    seconds = []

    def on_step_begin(self, *_, **__):
        self.begin = time.time()

    def on_step_end(self, *_, **__):
        Clock.seconds.append(time.time() - self.begin)


config = GRPOConfig(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=a.micro_batch,
    gradient_accumulation_steps=a.prompts * a.group // a.micro_batch, num_generations=a.group, max_completion_length=a.new_tokens,
    learning_rate=1e-6, loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, max_steps=a.steps, report_to=[], use_cpu=not on_gpu,
    bf16=a.dtype == "bfloat16", gradient_checkpointing=False, temperature=1.0, save_strategy="no", logging_steps=1,
    mask_truncated_completions=False, dataloader_pin_memory=False, disable_tqdm=True, generation_kwargs={"min_new_tokens": a.new_tokens})
trainer = GRPOTrainer(model=model, reward_funcs=parity, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
                      processing_class=tokenizer, callbacks=[Clock()])
begin = time.time()
trainer.train()
total = time.time() - begin
print(json.dumps({"program": "trl", "step_seconds": [total / a.steps] * a.steps, "inner_seconds": Clock.seconds,
                  "peak_mb": torch.cuda.max_memory_reserved() / 2**20 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
