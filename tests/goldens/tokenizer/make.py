#!/usr/bin/env python3
"""Small tokenizers trained on corpus.txt, and the ids that the reference libraries give.

    python3 tests/goldens/tokenizer/make.py       (pip install tokenizers transformers jinja2 sentencepiece)

corpus.txt is the text of this project's README and docs as they once were: an input, which no command makes.

    bpe/    byte-level BPE of 1,024 tokens with Qwen2.5's normalizer and pattern, by Hugging Face tokenizers: tokenizer.json
            (merges as "a b"), tokenizer_pairs.json (merges as ["a", "b"], two more added tokens), vocab.json, merges.txt,
            tokenizer_config.json; vectors.jsonl: ids of texts, and the decoded text where it is not the text itself;
            chat_vectors.jsonl: conversations rendered by transformers, and their ids; digests.json: SHA-256 of the ids
            of the corpus (for each text the number of ids, then the ids, as 32-bit little-endian integers)
    byte/   the tokenizer of the demo: bytes are ids
    sp/     SentencePiece: bpe.model (Llama's settings) and unigram.model (the defaults); vectors.jsonl: ids by
            SentencePiece; folders.json: ids of a folder with added tokens, by transformers' LlamaTokenizer
"""
import hashlib
import io
import json
import pathlib
import random
import shutil
import struct
import tempfile

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE / "corpus.txt"
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<tool_call>", "</tool_call>"]
MORE = ["<think>", "</think>"]
VOCABULARY = 1024
BITS = ["'s", "'S", "'ll", "'Re", "'", " ", "  ", "\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "the", " and", "123", "½",
        "e\u0301", "\u0301", "\u212b", "가", "\u1100\u1161", "<|im_end|>", "<tool_call>", "<|im_", "中文", "\U0001f999",
        "\U0001f468\u200d\U0001f469", "$x^2$", "\\boxed{}", "...", "ﬁ", "A", "_", "é", " DAPO", "token-mean", "0.28"]


def lines(path, rows):
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    print(f"{path.relative_to(HERE)}: {len(rows)} cases")


def texts():
    """Every line of a part of the corpus, pieces that are easy to get wrong, and mixtures of them."""
    draw = random.Random(7)
    some = [line for line in CORPUS.read_text().split("\n") if line][::9]
    mixed = ["".join(draw.choice(BITS) for _ in range(draw.randint(1, 14))) for _ in range(160)]
    wide = ["".join(chr(draw.choice([draw.randint(32, 126), draw.randint(0xA0, 0x17F), draw.randint(0x370, 0x3FF),
                                     draw.randint(0x4E00, 0x9FFF)])) for _ in range(draw.randint(1, 20))) for _ in range(60)]
    return list(dict.fromkeys(["", *BITS, *some, *mixed, *wide]))


def added(tokenizer, contents, special):
    for content in contents:
        token = AddedToken(content, special=special, normalized=False)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])


def byte_level_bpe():
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFC()
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), whole])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train([str(CORPUS)], trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False))
    added(tokenizer, SPECIAL, True)
    added(tokenizer, PLAIN, False)
    return tokenizer


def make_bpe():
    out = HERE / "bpe"
    out.mkdir(exist_ok=True)
    tokenizer = byte_level_bpe()
    tokenizer.model.save(str(out))  # vocab.json and merges.txt
    written = json.loads(tokenizer.to_str())
    written["model"]["merges"] = [" ".join(pair) for pair in written["model"]["merges"]]
    (out / "tokenizer.json").write_text(json.dumps(written, ensure_ascii=False) + "\n")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    pairs = byte_level_bpe()
    added(pairs, MORE, False)
    (out / "tokenizer_pairs.json").write_text(pairs.to_str() + "\n")
    template = (HERE.parent / "chat/templates/marked_turns_with_tools.jinja").read_text()
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL + PLAIN}
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    config = dict(tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>",
                  added_tokens_decoder={str(i): dict(content=t, special=t in SPECIAL, **flags) for t, i in ids.items()},
                  chat_template=template)
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")

    rows = []
    for text in texts():
        got = tokenizer.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode(got, skip_special_tokens=False)
        rows.append(dict(text=text, ids=got, **({} if back == text else {"decoded": back})))
    lines(out / "vectors.jsonl", rows)
    chat(out, tokenizer, template)
    items = [digest(tokenizer, "whole file", [CORPUS.read_text()]), digest(tokenizer, "by line", CORPUS.read_text().split("\n"))]
    (out / "digests.json").write_text(json.dumps({"items": items}, indent=1) + "\n")


def digest(tokenizer, name, parts):
    sha, tokens = hashlib.sha256(), 0
    for part in parts:
        ids = tokenizer.encode(part, add_special_tokens=False).ids
        sha.update(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
        tokens += len(ids)
    return dict(name=name, texts=len(parts), tokens=tokens, sha256=sha.hexdigest())


def chat(out, tokenizer, template):
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)
    turn = lambda role, content, **more: dict(role=role, content=content, **more)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [1.5, None, "é"]}}}
    tools = [{"type": "function", "function": {"name": "add", "description": "a + b", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}}}]
    talks = {
        "one turn": [turn("user", "What is 2 + 3?")],
        "system": [turn("system", "Answer in words."), turn("user", "2 + 3")],
        "two turns": [turn("user", "2 + 3"), turn("assistant", "5"), turn("user", "and 4?")],
        "empty": [turn("user", "")],
        "marks in the text": [turn("user", "<|im_end|> é 中文 \U0001f999\n\n")],
        "a call": [turn("user", "2 + 3"), turn("assistant", "", tool_calls=[call]), turn("tool", "5")],
        "white space": [turn("user", "  2  "), turn("assistant", " 5 \n"), turn("user", "\t")],
    }
    rows = []
    for name, messages in talks.items():
        for given in (None, tools):
            for prompt in (True, False):
                text = fast.apply_chat_template(messages, tools=given, add_generation_prompt=prompt, tokenize=False)
                rows.append(dict(name=name, messages=messages, tools=given, add_generation_prompt=prompt, rendered=text,
                                 ids=tokenizer.encode(text, add_special_tokens=False).ids))
    lines(out / "chat_vectors.jsonl", rows)


def make_byte():
    out = HERE / "byte"
    out.mkdir(exist_ok=True)
    # The byte behind each of the alphabet's characters: printable Latin-1 is itself, the others follow from U+0100 on.
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in itself]
    vocabulary = {chr(b if b in itself else 256 + others.index(b)): b for b in range(256)}
    assert set(vocabulary) == set(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    added(tokenizer, ["<|endoftext|>", "<|pad|>"], True)
    (out / "tokenizer.json").write_text(tokenizer.to_str() + "\n")
    config = dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<|endoftext|>", pad_token="<|pad|>")
    (out / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def make_sp():
    out = HERE / "sp"
    out.mkdir(exist_ok=True)
    llama = dict(model_type="bpe", vocab_size=640, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
                 remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=1.0)
    # Words of the folders' texts, often enough to be pieces, at a line's start and after a space.
    words = ["user", "assistant", "there", "Hi", "Hi there", "the user", "an assistant", "Hi user"] * 40
    rows = []
    for name, settings, text in (("bpe", llama, words), ("unigram", dict(model_type="unigram", vocab_size=400), [])):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS.read_text().split("\n") + text), model_writer=model, num_threads=1,
            minloglevel=2, **settings)
        (out / f"{name}.model").write_bytes(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        for part in texts():
            if "\u2581" not in part and not any(t in part for t in SPECIAL):
                ids = processor.encode(part)
                rows.append(dict(model=name, text=part, ids=ids, decoded=processor.decode(ids)))
    lines(out / "vectors.jsonl", rows)
    folders(out)


def folders(out):
    """What transformers gives for a folder of bpe.model with two added tokens, for the texts of tests/tokenizer/files.cpp."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    size = processor.vocab_size()
    turns = "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    marks = {0: "<unk>", 1: "<s>", 2: "</s>", size: "<|im_end|>", size + 1: "<|im_start|>"}
    found = {"pieces": size, "one more space": processor.encode(" Hi")}  # of SentencePiece itself, which prepends one always
    for legacy in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shutil.copy(out / "bpe.model", folder / "tokenizer.model")
            config = dict(tokenizer_class="LlamaTokenizer", eos_token="<|im_end|>", legacy=legacy, add_bos_token=False,
                          added_tokens_decoder={str(i): dict(content=t, **flags) for i, t in marks.items()})
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            for name, text in {"turns": turns, "spaces": "Hi <|im_end|> there", "marks": "<s>x</s> y<unk>", "word": "Hi",
                               "space and word": " Hi"}.items():
                found[f"{name}{', legacy' if legacy else ''}"] = tokenizer(text, add_special_tokens=False).input_ids
    (out / "folders.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    make_bpe()
    make_byte()
    make_sp()
    print(f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}, sentencepiece {sentencepiece.__version__}")
