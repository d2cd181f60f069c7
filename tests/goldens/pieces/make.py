#!/usr/bin/env python3
"""Writes pieces.json (a BPE with bytes as fallback, trained on the text below) and pieces.jsonl beside it: what Hugging
Face tokenizers makes of texts with this model under the normalizers, pre-tokenizers and decoders of public models.

    pip install tokenizers && python3 tests/goldens/pieces/make.py      (tokenizers 0.23.3)

A row of pieces.jsonl: "kind" (a tokenizer.json is pieces.json with that kind's parts), "text", "ids" (with special
tokens), "plain" (without) and "decoded" (of "plain", special tokens skipped).
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

here = pathlib.Path(__file__).parent
mark = "\u2581"
corpus = """The cat sat on the mat, and the other cat sat there too. What is 12 * 7? It is 84, not 74 and not 94.
def add(a, b):
    return a + b
for i in range(10):
    print(i, i * i)
Die Katze saß auf der Matte; die andere aß Käse. Le chat était assis sur le tapis, où l'été était là.
x = 3.14, y = 2.71; if x > y then the answer is x, else the answer is y. \\frac{1}{2} + \\sqrt{3}
Let us think step by step. First we add the numbers, then we divide the sum by the count of numbers.
""" * 3

base = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
base.normalizer = normalizers.Replace(" ", mark)
base.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
special = ["<unk>", "<s>", "</s>"]
base.train_from_iterator(corpus.splitlines(), trainers.BpeTrainer(
    vocab_size=700, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)], show_progress=False))
model = json.loads(base.to_str())
added = [{"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
          "special": True} for i, name in enumerate(special)]
size = max(model["model"]["vocab"].values()) + 1
# spaces by the run, which no pre-tokenizer that cuts before each can merge
for run in (2, 4):
    left = mark * (run // 2)
    model["model"]["vocab"][mark * run] = size
    model["model"]["merges"].append([left, left])
    size += 1
for i, (name, flags) in enumerate([("<|user|>", {}), ("[TOOL]", {"special": False, "normalized": True}),
                                   ("<pad>", {"lstrip": True, "rstrip": True}), ("a b", {"special": False})]):
    added.append({"id": size + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": True, **flags})
model["added_tokens"] = added
template = json.loads(processors.TemplateProcessing(
    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]).__getstate__())
metaspace = lambda scheme, split: {"type": "Metaspace", "replacement": mark, "prepend_scheme": scheme, "split": split}
replace = {"type": "Replace", "pattern": {"String": " "}, "content": mark}
back = {"type": "Replace", "pattern": {"String": mark}, "content": " "}
fused = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
sequence = lambda kind, parts: {"type": "Sequence", kind: parts}
kinds = {
    "llama": {"normalizer": sequence("normalizers", [{"type": "Prepend", "prepend": mark}, replace]),
              "pre_tokenizer": None, "decoder": sequence("decoders", fused + [strip]), "post_processor": template},
    "mistral": {"normalizer": None, "pre_tokenizer": metaspace("first", False),
                "decoder": sequence("decoders", fused + [strip]), "post_processor": template},
    "split": {"normalizer": None, "pre_tokenizer": metaspace("always", True),
              "decoder": sequence("decoders", [{"type": "ByteFallback"}, metaspace("always", True)]),
              "post_processor": None},
    "never": {"normalizer": None, "pre_tokenizer": metaspace("never", True),
              "decoder": sequence("decoders", fused), "post_processor": None},
    "gemma": {"normalizer": replace, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                                                       "behavior": "MergedWithPrevious", "invert": False},
              "decoder": sequence("decoders", fused), "post_processor": template},
}
texts = ["", " ", "  ", "a", " a", "the cat", "The cat sat on the mat.", "  two  spaces   three    four ", "\n", "\n\n x\n",
         "a\tb", "12 * 7 = 84", "né ß İ 中文 \U0001f600!", f"{mark}x{mark} y", "<s>x</s> y<unk>", "Hi <|user|> there",
         "<|user|>\nHi<|user|>", "a [TOOL] b[TOOL]", "[TOOL] x", "x <pad> y", "a b a b", "<0x41>", "e\u0301", "\u00a0x",
         "def add(a, b):\n    return a + b\n", "x" * 100, "the " * 60, "中" * 40]
random.seed(3)
alphabet = ["the", " ", "  ", "cat", "\n", "é", "中", "1", "23", "a b", "<|user|>", "[TOOL]", " <pad> ", "</s>", mark, ".", "sat",
            "\U0001f600", "numbers", "=", "\t", "Katze"]
texts += ["".join(random.choices(alphabet, k=random.randint(1, 12))) for _ in range(60)]
rows = []
for kind, parts in kinds.items():
    hf = Tokenizer.from_str(json.dumps({**model, **parts}))
    for text in texts:
        plain = hf.encode(text, add_special_tokens=False).ids
        rows.append({"kind": kind, "text": text, "ids": hf.encode(text).ids, "plain": plain, "decoded": hf.decode(plain)})
model = {key: model[key] for key in ("version", "added_tokens", "model")}
(here / "pieces.json").write_text(json.dumps({**model, "kinds": kinds}, ensure_ascii=False, separators=(",", ":")) + "\n")
(here / "pieces.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
