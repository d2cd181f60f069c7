#!/usr/bin/env python3
"""`boxed` or `math` against Hugging Face's Math-Verify: how often they agree, and every case where they do not.

    python3 bench/peers/verifier_agreement.py --data ../shared/data [--verifier math] [--dapo ./dapo] [--out odd.jsonl] [--cache mv.json]

Sets of boxed, each in both directions (answer as ground truth, and as response):
  self       each MATH-500 answer against itself in other common spellings (generated here, so all are right)
  solution   the box of each MATH-500 solution against the answer
  pairs      each MATH-500 answer against every other one (all pairs of different texts)
  equiv      gen_equiv_pairs.jsonl: answers of models against MATH-500's
  libraries  gen_parametrized_cases.jsonl: the test cases of Math-Verify and lighteval, if the prediction has a box, or is short
Sets of math, whole responses (both sides have to find the answer):
  sentences  each MATH-500 answer in seven sentences, with and without formula, marker and box (all right)
  unboxed    each MATH-500 solution without its box: the answer stands somewhere near the end (all right)
  equiv      gen_equiv_pairs.jsonl, each answer as a formula;  bare: as it is
  libraries  gen_parametrized_cases.jsonl, all of them
  gsm8k      gsm8k_example_model_solutions.jsonl: every fifth response of real models, with their labels
Run with a Python that has math-verify (pip install math-verify==0.9.0).
"""
import argparse, json, logging, os, pathlib, re, subprocess, sys, tempfile

ap = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
ap.add_argument("--data", default="../shared/data")
ap.add_argument("--dapo", default="./dapo", help="the built program")
ap.add_argument("--verifier", choices=["boxed", "math"], default="boxed")
ap.add_argument("--out", help="file for the disagreements, one per line")
ap.add_argument("--cache", help="keep Math-Verify's verdicts in this file")
ap.add_argument("--only", help="one set")
ap.add_argument("--every", type=int, default=1, help="of the pairs that ours considers different, let Math-Verify judge every n-th")
a = ap.parse_args()
data = pathlib.Path(a.data)


def spellings(s):
    """Other common spellings of a MATH answer: pairs (rule, text)."""
    out = [("spaces", " " + s.replace(",", " , ") + " " if "\\!" not in s and not re.search(r"\d,\d{3}", s) else " " + s + " "),
           ("dollars", f"${s}$"), ("stop", s + "."), ("group", "{" + s + "}")]
    def rule(name, pattern, to):
        t = re.sub(pattern, to, s)
        if t != s:
            out.append((name, t))
    rule("dfrac", r"\\[dt]?frac", r"\\dfrac")
    rule("tfrac", r"\\[dt]?frac", r"\\tfrac")
    rule("braces of \\frac", r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}")
    rule("slash", r"^(-?)\\d?frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3")
    rule("slash over a root", r"^\\frac\{([^{}]*\\sqrt\{\d+\})\}\{(\d+)\}$", r"\1/\2")
    rule("sign inside", r"^-\\frac\{(\d+|\\pi)\}", r"\\frac{-\1}")
    rule("braces of \\sqrt", r"\\sqrt(\d)(?!\d)", r"\\sqrt{\1}")
    rule("no braces of \\sqrt", r"\\sqrt\{(\d)\}", r"\\sqrt\1")
    rule("thin space", r"\\sqrt", r"\\,\\sqrt")
    rule("cdot", r"(\d) ?\\(sqrt|pi)", r"\1 \\cdot \\\2")
    rule("braces of exponents", r"\^(\d)", r"^{\1}")
    rule("braces of bases", r"_(\d+)", r"_{\1}")
    rule("no braces of bases", r"_\{(\d+)\}", r"_\1")
    rule("left right", r"^\((.*)\)$", r"\\left(\1\\right)")
    rule("no left right", r"\\left ?|\\right ?", "")
    rule("bare text", r"^\\text\{\(?(\w+)\)?\}$", r"\1")
    rule("bold text", r"^\\text\{", r"\\textbf{")
    rule("mathrm", r"^\\text\{", r"\\mathrm{")
    rule("braced degree", r"\^\\circ", r"^{\\circ}")
    rule("degree sign", r"\^\\circ", "°")
    rule("\\degree", r"\^\\circ", r"\\degree")
    rule("degrees in words", r"\^\\circ", r"\\text{ degrees}")
    rule("no degree", r"\^\\circ", "")
    rule("no unit", r"(?<=.) ?\\(text|mbox)\{ ?[a-z]+\}(\^\d)?$", "")
    rule("no dollar", r"^\\\$", "")
    rule("thousands", r"^(\d+)(\d{3})$", r"\1,\2")
    rule("thousands in braces", r"^(\d+)(\d{3})$", r"\1{,}\2")
    rule("thin thousands", r"^(\d+)(\d{3})$", r"\1\\,\2")
    rule("no thousands", r",(\\!)? ?(?=\d{3})", "") if "(" not in s else None
    rule("point zero", r"^(-?\d+)$", r"\1.0")
    rule("leading zero", r"^\.", "0.")
    rule("no leading zero", r"^0\.", ".")
    rule("x =", r"^(-?\d+)$", r"x = \1")
    rule("no name", r"^[a-z] ?(=|\\in) ?", "")
    rule("text around", r"^(-?\d+)$", r"\\text{\1}")
    rule("bmatrix", r"pmatrix", "bmatrix")
    rule("Unicode minus", r"-", "\u2212")
    rule("Unicode pi", r"\\pi\b", "π")
    rule("other order", r"^(-?\d+), ?(-?\d{1,2})$", r"\2, \1")
    rule("plus minus", r"^(\d+) \\pm (.*)$", r"\1 + \2, \1 - \2")
    return [(n, t) for n, t in out if t != s]


def rows(path):
    return [json.loads(l) for l in open(data / path, encoding="utf-8")]


def cases():
    """(set, rule, ground truth, response's answer, expected or None)"""
    math = rows("eval/math500.jsonl")
    golds = [r["answer"] for r in math]
    for g in dict.fromkeys(golds):
        for rule, t in spellings(g):
            yield "self", rule, g, t, True
    for r in math:
        i = max(r["solution"].rfind("\\boxed"), r["solution"].rfind("\\fbox"))
        yield "solution", r.get("unique_id", ""), r["answer"], r["solution"][i:], True
    distinct = list(dict.fromkeys(golds))
    for g in distinct:
        for t in distinct:
            if g < t:
                yield "pairs", "", g, t, None
    for r in rows("verifier/gen_equiv_pairs.jsonl"):
        yield "equiv", r["src"], r["gold"], r["pred"], None
    for r in rows("verifier/gen_parametrized_cases.jsonl"):
        expected = r.get("expected", r.get("result"))
        if expected is None or not r.get("gold") or not ("\\boxed{" in r["pred"] or len(r["pred"]) < 60):
            continue
        yield "libraries", r["test"], r["gold"], r["pred"], expected == 1


def responses():
    """The same for math: (set, rule, ground truth, response, expected or None)"""
    sentences = [("final", "The final answer is $%s$. I hope it is correct."), ("Answer:", "We add both.\nAnswer: $%s$"),
                 ("bold", "So we are done.\n\n**Final Answer:** \\(%s\\)"), ("display", "Therefore we get\n\\[ %s \\]"),
                 ("last formula", "From $a^2=b$ and 17 steps we\nfinally find $%s$."), ("plain", "The answer is %s."),
                 ("box", "Some $x=2$.\n$\\boxed{%s}$ and that is 3 times more.")]
    for r in rows("eval/math500.jsonl"):
        for rule, text in sentences:
            yield "sentences", rule, r["answer"], text % r["answer"], True
        solution = r["solution"]
        begin = solution.rfind("\\boxed{")
        depth = 0
        for end in range(begin + 6, len(solution)):
            depth += {"{": 1, "}": -1}.get(solution[end], 0)
            if depth == 0:
                break
        if begin >= 0:
            yield "unboxed", r.get("unique_id", ""), r["answer"], solution[:begin] + solution[begin + 7:end] + solution[end + 1:], True
    for r in rows("verifier/gen_equiv_pairs.jsonl"):
        yield "equiv", r["src"], r["gold"], "$" + r["pred"] + "$", None
        yield "bare", r["src"], r["gold"], r["pred"], None
    for r in rows("verifier/gen_parametrized_cases.jsonl"):
        expected = r.get("expected", r.get("result"))
        if expected is not None and r.get("gold"):
            yield "libraries", r["test"], r["gold"], r["pred"], expected == 1
    n = 0
    for r in rows("verifier/gsm8k_example_model_solutions.jsonl"):
        gold = r["ground_truth"].split("A: ")[-1].strip()
        for model, answer in r.items():
            if isinstance(answer, dict) and "solution" in answer:
                n += 1
                if n % 5 == 0:
                    yield "gsm8k", model, gold, re.sub(r"<<.*?>>", "", answer["solution"]), answer["is_correct"]


def in_box(text):
    return text if "\\boxed" in text else "\\boxed{" + re.sub(r"^\s*\$(.*)\$\s*$", r"\1", text, flags=re.S) + "}"


def as_response(pred):
    return pred if a.verifier == "math" else in_box(pred)


def ours(pairs):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as f:
        for gold, pred in pairs:
            f.write(json.dumps({"solution": as_response(pred), "ground_truth": in_box(gold) if gold else " "}) + "\n")
    done = subprocess.run([a.dapo, "verify", "--verifier", a.verifier, f.name], capture_output=True, text=True)
    os.unlink(f.name)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(l) for l in done.stdout.splitlines()]


logging.disable(logging.CRITICAL)
from math_verify import parse, verify

parsed = {}
cache = json.load(open(a.cache)) if a.cache and os.path.exists(a.cache) else {}


def theirs(gold, pred):
    gold, pred = in_box(gold), as_response(pred)
    key = gold + "\x1f" + pred
    if key not in cache:
        for t in (gold, pred):
            if t not in parsed:
                parsed[t] = parse(t)
        cache[key] = bool(verify(parsed[gold], parsed[pred]))
    return cache[key]


table, judged, odd = {}, {}, []
work = [c for c in (cases() if a.verifier == "boxed" else responses()) if a.only in (None, c[0])]
both = [(g, p) for _, _, g, p, _ in work] + [(p, g) for _, _, g, p, _ in work if a.verifier == "boxed"]
verdicts = ours(both)
for i, (gold, pred) in enumerate(both):
    kind, rule, _, _, expected = work[i % len(work)]
    we = verdicts[i]["acc"]
    judged[kind] = judged.get(kind, 0) + 1
    if kind == "pairs" and not we and i % a.every:
        continue
    they = theirs(gold, pred)
    count = table.setdefault(kind, [0, 0, 0, 0])
    count[(0 if they else 1) if we else (2 if they else 3)] += 1
    if we != they or (expected is not None and we != expected):
        odd.append((kind, rule, gold, pred, we, they, expected, verdicts[i]["pred"]))
if a.cache:
    json.dump(cache, open(a.cache, "w"))
print("| set | judged | both right | only ours | only Math-Verify | neither | agreement |\n|---|---|---|---|---|---|---|")
for kind, (yes, we, they, no) in table.items():
    print(f"| {kind} | {judged[kind]} | {yes} | {we} | {they} | {no} | {100 * (yes + no) / (yes + we + they + no):.2f} % |")
if a.out:
    with open(a.out, "w", encoding="utf-8") as f:
        for kind, rule, gold, pred, we, they, expected, spelled in odd:
            f.write(json.dumps({"set": kind, "rule": rule, "gold": gold, "pred": pred[-200:], "ours": we, "math_verify": they,
                                "expected": expected, "as_compared": spelled}, ensure_ascii=False) + "\n")
