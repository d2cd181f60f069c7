#!/usr/bin/env python3
"""Our encoder against Hugging Face tokenizers, one thread each, alternating in one run; ratio of the medians.

  pip install tokenizers
  make build/release/bench_tokenizer
  python3 bench/peers/tokenizer_hf.py FOLDER TEXT [--bench build/release/bench_tokenizer] [--rounds 5]

FOLDER holds tokenizer.json (or is such a file); the lines of TEXT are encoded one by one. Exits with 1 if ids differ.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402


def ours(args):
    """MB/s and checksum from one run of our benchmark."""
    env = dict(os.environ, DAPO_BENCH_TOKENIZER=args.folder, DAPO_BENCH_TEXT=args.text)
    command = [args.bench, "--benchmark_filter=^encode$", "--benchmark_format=json", "--benchmark_min_time=0.3"]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    row = json.loads(out)["benchmarks"][0]
    return row["bytes_per_second"] / 1e6, int(row["checksum"]), int(row["tokens"])


def theirs(tokenizer, lines, size):
    begin = time.process_time()
    ids = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
    seconds = time.process_time() - begin
    checksum = tokens = 0
    for row in ids:
        tokens += len(row)
        for i in row:
            checksum = (checksum * 31 + i) & 0xFFFFFFFF
    return size / seconds / 1e6, checksum, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--bench", default="build/release/bench_tokenizer")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    path = os.path.join(args.folder, "tokenizer.json") if os.path.isdir(args.folder) else args.folder
    tokenizer = tokenizers.Tokenizer.from_file(path)
    data = open(args.text, "rb").read().decode()
    lines = data.split("\n")
    if lines[-1] == "":
        lines.pop()
    size = sum(len(line.encode()) for line in lines)
    speeds = {"ours": [], "hf": []}
    for round_ in range(args.rounds):
        speed, checksum, tokens = ours(args)
        hf_speed, hf_checksum, hf_tokens = theirs(tokenizer, lines, size)
        speeds["ours"].append(speed)
        speeds["hf"].append(hf_speed)
        print(f"round {round_ + 1}: ours {speed:6.1f} MB/s, Hugging Face {hf_speed:6.1f} MB/s")
        if (checksum, tokens) != (hf_checksum, hf_tokens):
            print(f"ids differ: {tokens} tokens against {hf_tokens}")
            sys.exit(1)
    a, b = statistics.median(speeds["ours"]), statistics.median(speeds["hf"])
    print(f"{tokens} identical ids; tokenizers {tokenizers.__version__}; medians of {args.rounds}: "
          f"ours {a:.1f} MB/s, Hugging Face {b:.1f} MB/s, ratio {a / b:.1f}")


if __name__ == "__main__":
    main()
