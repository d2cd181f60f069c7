#!/usr/bin/env python3
"""Two small random models and what transformers computes with them, in float64: logits, log-probs, entropies, losses,
every gradient, three AdamW steps, greedy tokens.

    python3 tests/goldens/models/make.py          (pip install torch transformers safetensors; CPU, seconds)

    qwen/   Qwen2: tied head, two query heads a KV head, bias on q, k and v
    llama/  Llama: head of its own, no bias, head_dim 64 set apart from hidden / heads

Each folder is a Hugging Face model folder (f32) with
    forward.safetensors    the sequences one after another (tokens, prompt_len, response_len, advantage) and, a row a token,
                           logits; of the response tokens in the same order old_log_prob, log_prob, entropy; both losses
    grads_dapo, grads_sft  d loss / d parameter of the two losses, by autograd
    after_3_adamw_steps    weights after three steps on the SFT loss (settings below, in train)
    golden.json            loss and gradient norm of the three steps; greedy continuations with the margin of each choice

Norms, softmax and products run in float64 and are stored as float32; the rotary angles are the library's own, in float32.
"""
import json
import pathlib

import torch
import transformers
from safetensors.torch import save
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

HERE = pathlib.Path(__file__).resolve().parent
MODELS = {
    "qwen": (Qwen2Config, Qwen2ForCausalLM, dict(
        model_type="qwen2", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        num_hidden_layers=2, vocab_size=256, tie_word_embeddings=True, rope_theta=1e6)),
    "llama": (LlamaConfig, LlamaForCausalLM, dict(
        model_type="llama", hidden_size=48, num_attention_heads=2, num_key_value_heads=1, head_dim=64,
        intermediate_size=80, num_hidden_layers=2, vocab_size=192, tie_word_embeddings=False, rope_theta=1e4)),
}
COMMON = dict(rms_norm_eps=1e-6, max_position_embeddings=512, hidden_act="silu", eos_token_id=1)
LENGTHS = [(3, 1), (2, 3), (9, 8), (5, 60), (70, 67)]  # tokens of prompt and response: both sides of a KV tile's 64
ADVANTAGES = [1.3, -0.7, 0.9, -0.25, 3.75]


def norm_in_double(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


Qwen2RMSNorm.forward = norm_in_double
LlamaRMSNorm.forward = norm_in_double


def f32(t):
    return t.detach().to(torch.float32).contiguous()


def store(folder, name, tensors):
    (folder / f"{name}.safetensors").write_bytes(save({n: t.clone() for n, t in tensors.items()}))


def make_model(name, seed):
    config_class, model_class, shape = MODELS[name]
    kw = {k: v for k, v in shape.items() if k not in ("model_type", "rope_theta")}
    model = model_class(config_class(**kw, **COMMON, bos_token_id=None, attn_implementation="sdpa",
                                     rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():  # livelier than an initial model, so that errors show
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if "norm" in key else noise * (0.3 if p.dim() == 1 else 1.2 / p.shape[1] ** 0.5))
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    store(folder, "model", {n: f32(p) for n, p in model.named_parameters()})
    config = dict(architectures=[model_class.__name__], **shape, **COMMON, torch_dtype="float32")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return model.double(), generator, folder


def token_losses(log_prob, old, advantage, low=0.2, high=0.28, c=10.0):
    """arXiv 2503.14476, equation 10, with dual clip."""
    ratio = torch.exp((log_prob - old).clamp(-20, 20))
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))
    return torch.where(advantage < 0, torch.minimum(-advantage * c, loss), loss)


def response_rows(model, sequences):
    """Log-softmax at the rows that predict response tokens, a tensor a sequence."""
    logits = [model(x[None]).logits[0] for x in sequences]
    rows = [torch.log_softmax(z, -1)[p - 1:p + r - 1] for z, (p, r) in zip(logits, LENGTHS)]
    return logits, rows, [s.gather(1, x[p:, None])[:, 0] for s, x, (p, _) in zip(rows, sequences, LENGTHS)]


def train(model, sequences, tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1,
                                  foreach=False)
    steps = []
    for _ in range(3):
        model.zero_grad()
        loss = -sum(lp.sum() for lp in response_rows(model, sequences)[2]) / tokens
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    return steps


def greedy(model, vocab, generator):
    found = []
    for length in (1, 7, 33):
        prompt = torch.randint(2, vocab, (length,), generator=generator).tolist()
        ids, margins = list(prompt), []
        with torch.no_grad():
            for _ in range(40):
                top = model(torch.tensor([ids])).logits[0, -1].topk(2)
                margins.append((top.values[0] - top.values[1]).item())
                ids.append(top.indices[0].item())
        found.append({"prompt": prompt, "response": ids[length:], "margin": [round(m, 6) for m in margins]})
    return found


def make(name, seed):
    model, generator, folder = make_model(name, seed)
    vocab = MODELS[name][2]["vocab_size"]
    sequences = [torch.randint(2, vocab, (p + r,), generator=generator) for p, r in LENGTHS]
    for x in sequences[::2]:
        x[-1] = 1
    continuations = greedy(model, vocab, generator)
    logits, rows, log_prob = response_rows(model, sequences)
    old = [(lp.detach() + 0.5 * torch.randn(lp.shape, generator=generator, dtype=torch.float64)).clamp(max=0)
           for lp in log_prob]
    tokens = sum(r for _, r in LENGTHS)
    advantage = torch.tensor(ADVANTAGES, dtype=torch.float64)
    losses = {"dapo": sum(token_losses(a, f32(o).double(), v).sum() for a, o, v in zip(log_prob, old, f32(advantage).double())) / tokens,
              "sft": -sum(lp.sum() for lp in log_prob) / tokens}
    store(folder, "forward", dict(
        tokens=torch.cat(sequences).int(), prompt_len=torch.tensor([p for p, _ in LENGTHS]).int(),
        response_len=torch.tensor([r for _, r in LENGTHS]).int(), advantage=f32(advantage),
        old_log_prob=f32(torch.cat(old)), logits=f32(torch.cat(logits)), log_prob=f32(torch.cat(log_prob)),
        entropy=f32(torch.cat([-(s.exp() * s).sum(-1) for s in rows])),
        dapo_loss=f32(losses["dapo"])[None], sft_loss=f32(losses["sft"])[None]))
    for what, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        store(folder, f"grads_{what}", {n: f32(p.grad) for n, p in model.named_parameters()})
    steps = train(model, sequences, tokens)
    store(folder, "after_3_adamw_steps", {n: f32(p) for n, p in model.named_parameters()})
    made_by = f"tests/goldens/models/make.py: torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    (folder / "golden.json").write_text(json.dumps(dict(made_by=made_by, sft_steps=steps, greedy=continuations)) + "\n")
    print(f"{name}: dapo {losses['dapo'].item():.6f}, sft {losses['sft'].item():.6f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, name in enumerate(MODELS):
        make(name, 20260 + number)
