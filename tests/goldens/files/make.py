#!/usr/bin/env python3
"""Small data sets in the layouts of well-known ones, with contents of our own, and Parquet files by pyarrow.

    python3 tests/goldens/files/make.py           (pip install pyarrow)

    gsm8k.jsonl, math.jsonl, countdown.jsonl      question and answer with "####"; problem and \\boxed{}; input and output
    dapo.jsonl.gz, dapo.parquet                   the same rows in verl's schema: prompt messages, reward_model, data_source
    dapo_format.jsonl                             problems wrapped as the DAPO data sets wrap them, the bare problem beside
    repeated.parquet                              5 problems, each 8 times
    parquet/                                      encodings and compressions; damaged files
"""
import gzip
import json
import pathlib
import random

import pyarrow
import pyarrow.parquet

HERE = pathlib.Path(__file__).resolve().parent
WRAPPED = ("Solve the following math problem step by step. The last line of your response should be of the form Answer: $Answer "
           "(without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its own line after "
           "\"Answer:\".")
THINGS = ["pens", "apples", "stamps", "tickets", "chairs", "books"]


def lines(name, rows):
    text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text(text)
    print(f"{name}: {len(rows)} rows")
    return text


def stories(n, seed):
    draw = random.Random(seed)
    for i in range(n):
        a, b, c = draw.randint(2, 40), draw.randint(2, 30), draw.choice(THINGS)
        yield f"Nr. {i + 1}: Nina’s shop sells {a} {c} a day at ${b} each. What does it take in a week, in dollars?", a, b


def texts():
    lines("gsm8k.jsonl", [dict(question=q, answer=f"A day brings {a} * {b} = <<{a}*{b}={a * b}>>{a * b} dollars.\nA week brings "
                               f"7 * {a * b} = <<7*{a * b}={7 * a * b}>>{7 * a * b} dollars.\n#### {7 * a * b:,}") for q, a, b in stories(12, 1)])
    math = [("Halve $\\frac{3}{7}$.", "\\frac{3}{14}"), ("Solve $x^2=5$ for $x>0$.", "\\sqrt{5}"), ("Name the vertex of $y=(x-2)^2+1$.", "(2,1)"),
            ("Which letter comes third?", "\\text{C}"), ("Write the empty interval's opposite.", "(-\\infty,\\infty)"), ("Add $2$ and $5$.", "7")]
    lines("math.jsonl", [dict(problem=p, solution=f"First \\boxed{{0}} is wrong.\nIt is $\\boxed{{{a}}}$.", answer=a, level=i + 1) for i, (p, a) in enumerate(math)])
    lines("countdown.jsonl", [dict(input=f"{a},{b},{a + 1}", output=str(2 * a + b + 1)) for a, b in ((3, 8), (25, 4), (100, 7), (1, 1))])
    lines("dapo_format.jsonl", [dict(prompt=[dict(role="user", content=WRAPPED.format(p))], reward_model=dict(ground_truth=float(len(p))), extra_info=dict(raw_problem=p))
                                for p in ["Add $1$ and $2$.", "Let\n\n$x = 5$.\nDouble it.", "Naïve “quotes” and \\\\ slashes?", " spaced "]])


def parquet():
    rows = [dict(data_source="math_dapo", prompt=[dict(content=q, role="user")], ability="MATH", reward_model=dict(ground_truth=str(7 * a * b), style="rule"),
                 extra_info=dict(index=str(i))) for i, (q, a, b) in enumerate(stories(60, 2))]
    rows[7]["prompt"], rows[9]["prompt"] = rows[3]["prompt"], rows[3]["prompt"]  # a problem with two answers, and then three
    rows[11] = dict(rows[12])
    rows[20]["reward_model"] = dict(ground_truth="123456789012345678901", style="rule")
    text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    (HERE / "dapo.jsonl.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), HERE / "dapo.parquet", row_group_size=17)
    few = [dict(data_source="aime", prompt=[dict(content=WRAPPED.format(q), role="user")], reward_model=dict(ground_truth=str(a))) for q, a, _ in stories(5, 3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([few[i % 5] for i in range(40)]), HERE / "repeated.parquet")

    out = HERE / "parquet"
    out.mkdir(exist_ok=True)
    table = pyarrow.table({"name": ["a", "bb", None, "dddd"] * 8, "foo": list(range(32)), "flag": [True, False, None, True] * 8,
                           "list": [[1, 2], [], None, [3]] * 8, "nested": [[["x"], []], [], None, [None, ["y"]]] * 8,
                           "object": [{"a": 1, "b": None}, None, {"a": 2, "b": "z"}, {"a": None, "b": ""}] * 8})
    variants = {"plain": dict(use_dictionary=False, compression="none"), "dictionary": dict(use_dictionary=True), "gzip": dict(compression="gzip"),
                "zstd": dict(compression="zstd"), "brotli": dict(compression="brotli"), "lz4": dict(compression="lz4"), "pages_v2": dict(data_page_version="2.0"),
                "delta": dict(use_dictionary=False, column_encoding={"name": "DELTA_LENGTH_BYTE_ARRAY", "foo": "DELTA_BINARY_PACKED"}),
                "checksums": dict(write_page_checksum=True), "groups": dict(row_group_size=5), "old": dict(version="1.0")}
    for name, settings in variants.items():
        pyarrow.parquet.write_table(table, out / f"{name}.parquet", **settings)
    whole = (out / "dictionary.parquet").read_bytes()
    (out / "cut.parquet").write_bytes(whole[:len(whole) // 2])
    (out / "damaged_footer.parquet").write_bytes(whole[:-200] + bytes(b ^ 0x5A for b in whole[-200:-8]) + whole[-8:])
    (out / "damaged_pages.parquet").write_bytes(whole[:4] + bytes(b ^ 0xFF for b in whole[4:300]) + whole[300:])
    (out / "empty.parquet").write_bytes(b"")
    print(f"parquet/: {len(variants)} files and 4 damaged ones, pyarrow {pyarrow.__version__}")


if __name__ == "__main__":
    texts()
    parquet()
