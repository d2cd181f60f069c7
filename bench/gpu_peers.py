#!/usr/bin/env python3
"""Times PyTorch and transformers on this machine's GPU, at the sizes of bench_step: one JSON line.

    gpu_peers.py train [--compile] [--length 1024] [--tokens 16384]    forward, backward and AdamW of a pack: tokens/s
    gpu_peers.py generate [--batch 64] [--context 256] [--new 32]      transformers' generate: tokens/s of its decode

The shape is Qwen2.5-0.5B's with random weights, bf16, scaled_dot_product_attention, fused AdamW, the loss a policy gradient (a
weighted cross-entropy). `--shape toy --device cpu` runs the same code small. Needs torch; generate needs transformers.
"""
import argparse, json, time

SHAPES = {"0.5b": dict(hidden=896, ffn=4864, layers=24, heads=14, kv=2, vocab=151936),
          "toy": dict(hidden=64, ffn=128, layers=2, heads=4, kv=2, vocab=256)}


def build(torch, s, device):
    """A plain Qwen2: RMSNorm, rotary embedding, grouped-query attention, SwiGLU, tied head."""
    from torch import nn
    F = nn.functional
    d = s["hidden"] // s["heads"]

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.RMSNorm(s["hidden"], eps=1e-6) for _ in range(2))
            self.qkv = nn.Linear(s["hidden"], (s["heads"] + 2 * s["kv"]) * d)
            self.o = nn.Linear(s["heads"] * d, s["hidden"], bias=False)
            self.gate_up = nn.Linear(s["hidden"], 2 * s["ffn"], bias=False)
            self.down = nn.Linear(s["ffn"], s["hidden"], bias=False)

        def forward(self, x, cos, sin):
            b, n, _ = x.shape
            q, k, v = (t.view(b, n, -1, d).transpose(1, 2)
                       for t in self.qkv(self.norm1(x)).split([s["heads"] * d, s["kv"] * d, s["kv"] * d], -1))
            a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
            x = x + self.o(a.transpose(1, 2).reshape(b, n, -1))
            gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(s["vocab"], s["hidden"])
            self.layers = nn.ModuleList(Layer() for _ in range(s["layers"]))
            self.norm = nn.RMSNorm(s["hidden"], eps=1e-6)

        def forward(self, ids, advantage):
            n = ids.shape[1] - 1
            angle = torch.outer(torch.arange(n, device=ids.device), 1e6 ** (-torch.arange(0, d, 2, device=ids.device) / d)).repeat(1, 2)
            x = self.embedding(ids[:, :-1])
            cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
            for layer in self.layers:
                x = layer(x, cos, sin)
            logits = F.linear(self.norm(x), self.embedding.weight)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
            return (loss * advantage.repeat_interleave(n)).mean()

    torch.manual_seed(1)
    with torch.device(device):  # random weights are created on the device
        net = Net().to(torch.bfloat16)
    for p in net.parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=0.02)
    return net


def clock(torch, device, body, runs):
    """Seconds of the fastest of `runs` runs."""
    best = float("inf")
    for _ in range(runs):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        body()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def train(torch, a):
    net = build(torch, SHAPES[a.shape], a.device)
    adamw = torch.optim.AdamW(net.parameters(), lr=1e-6, weight_decay=0.1, fused=a.device == "cuda")
    rows = max(1, a.tokens // a.length)
    ids = torch.randint(SHAPES[a.shape]["vocab"], (rows, a.length + 1), device=a.device)
    advantage = torch.randn(rows, device=a.device)
    forward = torch.compile(net) if a.compile else net

    def step():
        forward(ids, advantage).backward()
        adamw.step()
        adamw.zero_grad()

    for _ in range(2):
        step()
    return rows * a.length / clock(torch, a.device, step, 3)


def generate(torch, a):
    import transformers
    s = SHAPES[a.shape]
    config = transformers.Qwen2Config(hidden_size=s["hidden"], intermediate_size=s["ffn"], num_hidden_layers=s["layers"],
                                      num_attention_heads=s["heads"], num_key_value_heads=s["kv"], vocab_size=s["vocab"],
                                      tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    with torch.device(a.device):
        net = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()
    ids = torch.randint(1, s["vocab"], (a.batch, a.context), device=a.device)

    def run(new):
        with torch.no_grad():
            net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0)

    run(2)
    many, one = (clock(torch, a.device, lambda n=n: run(n), 2) for n in (a.new + 1, 1))
    return a.batch * a.new / (many - one)  # without the prompt's pass


def main():
    ap = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    ap.add_argument("what", choices=["train", "generate"])
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--shape", default="0.5b", choices=SHAPES)
    ap.add_argument("--device", default="cuda")
    for name, size in (("length", 1024), ("tokens", 16384), ("batch", 64), ("context", 256), ("new", 32)):
        ap.add_argument("--" + name, type=int, default=size)
    a = ap.parse_args()
    import torch
    rate = {"train": train, "generate": generate}[a.what](torch, a)
    peak = torch.cuda.max_memory_allocated() / 1e9 if a.device == "cuda" else 0
    print(json.dumps({"tokens_per_s": round(rate, 1), "peak_gb": round(peak, 2), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
