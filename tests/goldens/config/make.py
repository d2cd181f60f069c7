#!/usr/bin/env python3
"""Shapes of Qwen2.5 as transformers builds them from the published sizes, without memory (torch's meta device).

    python3 tests/goldens/config/make.py          (pip install torch transformers)

    table.json            parameters, tensors and settings of each size
    shapes_0.5B.json, shapes_7B.json              name and shape of every tensor of a checkpoint
    instruct_7B/          config.json and generation_config.json as transformers writes them
"""
import json
import pathlib

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
SIZES = {  # hidden, ffn, layers, heads, KV heads, vocabulary, tied, positions
    "0.5B": (896, 4864, 24, 14, 2, 151936, True, 32768), "1.5B": (1536, 8960, 28, 12, 2, 151936, True, 131072),
    "3B": (2048, 11008, 36, 16, 2, 151936, True, 32768), "7B": (3584, 18944, 28, 28, 4, 152064, False, 131072),
    "14B": (5120, 13824, 48, 40, 8, 152064, False, 131072), "32B": (5120, 27648, 64, 40, 8, 152064, False, 131072),
}


def config(size, **more):
    hidden, ffn, layers, heads, kv_heads, vocab, tied, positions = SIZES[size]
    eps = 1e-5 if size in ("14B", "32B") else 1e-6
    return Qwen2Config(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                       num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied, rms_norm_eps=eps,
                       max_position_embeddings=positions, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **more)


def main():
    table = {}
    for size in SIZES:
        c = config(size)
        with torch.device("meta"):
            model = Qwen2ForCausalLM(c)
        shapes = {name: list(p.shape) for name, p in model.named_parameters()}
        table[size] = dict(params=sum(p.numel() for p in model.parameters()), safetensors_tensors=len(shapes),
                           head_dim=c.hidden_size // c.num_attention_heads, tie_word_embeddings=c.tie_word_embeddings,
                           max_position_embeddings=dict(base=c.max_position_embeddings), rms_norm_eps=dict(base=c.rms_norm_eps))
        if size in ("0.5B", "7B"):
            (HERE / f"shapes_{size}.json").write_text(json.dumps(shapes, indent=0) + "\n")
    (HERE / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    c = config("7B", bos_token_id=151643, eos_token_id=151645, architectures=["Qwen2ForCausalLM"], dtype="bfloat16")
    c.save_pretrained(HERE / "instruct_7B")
    GenerationConfig(bos_token_id=151643, pad_token_id=151643, eos_token_id=[151645, 151643], do_sample=True, top_p=0.8,
                     temperature=0.7).save_pretrained(HERE / "instruct_7B")
    print(f"{len(table)} sizes")


if __name__ == "__main__":
    main()
