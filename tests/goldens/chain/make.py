#!/usr/bin/env python3
"""The crowd of the chain task, drawn by its definition in Python: data/synthetic.cpp is held to the same shares.

    python3 tests/goldens/chain/make.py           (nothing to install)

Writes crowd.jsonl.gz. A prompt is a chain of 2 to 12 additions and subtractions modulo 5 in a field of fixed width. Of four
teachers `steps` writes each result, `wordy` adds a sentence, `sloppy` draws a fifth of its results at random, `guess` answers
at once.
"""
import gzip
import json
import pathlib
import random

TEACHERS = {"steps": 0.10, "wordy": 0.20, "sloppy": 0.30, "guess": 0.40}
ROWS, MOST = 4096, 12


def row(draw):
    first = draw.randrange(5)
    chain = [(draw.choice("+-"), draw.randrange(5)) for _ in range(draw.randint(2, MOST))]
    teacher = draw.choices(list(TEACHERS), list(TEACHERS.values()))[0]
    result, said = first, ""
    for sign, digit in chain:
        result = (result + digit if sign == "+" else result - digit) % 5
        if teacher == "sloppy" and draw.random() < 0.2:
            result = draw.randrange(5)
        said += f"={result}"
    if teacher == "guess":
        response = f"Answer: {draw.randrange(5)}"
    else:
        response = said + ("\nhold on, let me see." if teacher == "wordy" else "") + f"\nAnswer: {result}"
    prompt = (str(first) + "".join(sign + str(digit) for sign, digit in chain)).ljust(1 + 2 * MOST) + "\n"
    return {"prompt": prompt, "response": response, "teacher": teacher}


if __name__ == "__main__":
    draw, rows = random.Random(20264), {}
    while len(rows) < ROWS:  # no prompt twice, as the task says
        new = row(draw)
        rows.setdefault(new["prompt"], new)
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in rows.values())
    with open(pathlib.Path(__file__).resolve().parent / "crowd.jsonl.gz", "wb") as f:
        f.write(gzip.compress(text.encode(), 9, mtime=0))
    print(f"crowd.jsonl.gz: {len(rows)} rows")
