#!/usr/bin/env python3
"""Verdicts of reference scorers on responses and answers written for these tests.

    python3 tests/goldens/verifier/make.py VERL   (pip install "math-verify[antlr4_9_3]==0.9.0")

VERL: a checkout of github.com/volcengine/verl at b178a3c (January 2026). Writes

    math_dapo.jsonl   score, acc, pred of verl's math_dapo.compute_score
    normalize.jsonl   its normalize_final_answer
    gsm8k.jsonl       strict and flexible verdict and extraction of verl's gsm8k
    pairs.jsonl       two answers; "same": what `boxed` has to say; "math_verify": its verdict in a box. Where they
                      differ, "why" says the reason (docs/verifiers.md), and this script fails on a missing one
"""
import importlib.util
import itertools
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent

# Answers in the spellings that models use; the first of each row is the ground truth.
ANSWERS = [
    ["42", "42", "42.", "$42$", "\\boxed{42}", "\\text{42}", "42 ", "042", "42.0", "x = 42", "forty-two"],
    ["-7", "-7", "$-7$", "- 7", "7", "\\textbf{-7}", "−7", "y=-7", "-7 points"],
    ["1000", "1,000", "1000", "1{,}000", "1 000", "$1,\\!000$", "1,000 dollars", "10,00", "1,000.0"],
    ["\\frac{3}{4}", "\\frac{3}{4}", "\\frac34", "\\frac{3}4", "3/4", "\\dfrac{3}{4}", "0.75", "$\\frac34$"],
    ["\\sqrt{5}", "\\sqrt{5}", "\\sqrt5", "\\sqrt 5", "2.236", "\\sqrt{5} cm"],
    ["(1,2)", "(1,2)", "(1, 2)", "\\left(1,2\\right)", "1,2"],
    ["90", "90^\\circ", "90 degrees", "90^{\\circ}", "$90$ degrees", "\\angle = 90"],
    ["12", "12 ways", "12 students", "12\\text{ cm}", "12 \\mbox{ inches}", "a 12", "an answer of 12", "12\\%"],
    ["B", "B", "\\text{(B)}", "(B)", "\\textbf{B}", "b", "option B"],
]
FRAMES = ["Answer: {}", "answer : {}", "We add both sides.\n\nAnswer: {}\n", "ANSWER:{}", "Answer: 5\nAnswer: {}",
          "The final answer is {}", "**Answer:** {}", "Answer:\n{}", "Answer: \n\n{}", "so \\boxed{{{}}}",
          "Answer: $\\boxed{{{}}}$ done", "Answer: {} Answer: {}"]
WRITTEN = [  # solution, ground truth: rules that the table above does not reach
    ("Answer: 8" + " and so on" * 40, "8"), ("x" * 290 + "Answer: 8", "8"), ("x" * 295 + "Answer: 8", "8"),
    ("Answer: 8" + "é" * 291, "8"), ("Answer: 8" + "é" * 292, "8"), ("\\boxed{8}" + " " * 91, "8"),
    ("\\boxed{8}" + " " * 92, "8"), ("\\boxed{\\boxed{8}}", "8"), ("\\boxed{8", "8"), ("\\boxed{}", "5"), ("", "8"),
    ("Answer: ", "8"), ("Answer:", "5"), ("Answer: \\boxed{a}{b}", "a"), ("Answer: $1$ and $2$", "1"),
    ("Answer: x=1=2", "2"), ("Answer: a=", "5"), ("Answer: \\$5", "5"), ("Answer: 5\\ m", "5m"), ("Answer: 1,2,3", "123"),
    ("Answer: 12,", "12"), ("Answer: \\text{m}", "5"), ("Answer: 3,\\text{and}4", "3,4"), ("Answer: \\ldots", "5"),
    ("Answer: squared", "d"), ("Answer: \"7\"", "7"), ("Answer: \\frac{1}{\\frac12}", "\\frac{1}{\\frac12}"),
    ("Answer: ７", "７"), ("Answer: 1٬2", "12"), ("Answer: ١,٢", "١٢"), ("Answer\u00a0: 7", "7"), ("Answer:\u30007", "7"),
    ("Answer: 7\r\nnext", "7"), ("Answer: 7\u2028next", "7next"), ("reply: 7", "7"), ("Answers: 7", "7"),
]
NORMALIZED = [
    "\\text{a}\\text{b}", "\\textbf{x}y", "\\overline{AB}", "\\overline{0.3}", "\\boxed{\\frac12}", "\\fracab", "\\frac12x",
    "\\sqrt3x", "\\sqrt{3}x", "\\frac{a}{b}", "\\dfrac12", "\\tfrac{1}2", "$x$$y$", "a$b$c", "$", "$$", "$a$ b $c$",
    "\\$1,234", "1,234,567", "1,23", "12,345.6", "x,y", "\\text{m}", "5\\text{ m}", "5\\text{}^2", "5\\text{ s}",
    "\\text{\ns}", "\\mathrm{th}", "5\\mathrm{th}", "45^\\circ", "45^{\\circ}", "a\\;b", "1,\\!000", "1{,}000", "\"q\"",
    "\\dots", "\\ldots,5", "5 squareinches", "hours", "km/h", "mph", "an apple", "a b", "banana", "man a", "\\ x",
    ".$5$", "5.$", "mbox{x}", "\\mbox{x}", "and", ",\\text{and}", "2\\text{and}3", "childrentickets", "points", "cents",
    "digits", "degrees", "gm", "pounds", "meals", "edges", "students", "multiples", "sue", "units", "x=1", "x==", "=",
    "", " ", "\t5\t", "5\n", "frac12", "fracabc", "frac{1}2", "sqrt", "sqrt2", "sqrtfrac12", "\\frac\\pi2", "\\sqrt\\pi",
    "\\text{a}b}", "\\text{{a}}", "\\boxed{a}b}", "é", "½", "½,½", "²", "1²,2", "٣,٤", "1 2 3", "( 1 , 2 )", "\\{1,2\\}",
]
GSM8K = [
    ("She buys 3 + 4 = 7 pens.\n#### {}", "{}"), ("#### {}", "{}"), ("####{}", "{}"), ("#### ${}", "{}"),
    ("The answer is {}.", "{}"), ("The answer is {}, not 5.", "{}"), ("#### 1\n#### {}", "{}"), ("#### {} apples", "{}"),
    ("{} and " + "so on " * 60, "{}"), ("nothing here", "{}"), ("#### {}.", "{}"), ("#### {},", "{}"), ("#### .", "{}"),
    ("...", "{}"), ("- {}", "{}"), ("({})", "{}"), ("#### {}%", "{}"), ("{}\n\n####", "{}"),
]
NUMBERS = ["18", "-3", "1,250", "0.5", "72.00", "٣"]

# Two answers, whether they are the same one, and why Math-Verify says otherwise where it does.
PAIRS = [
    ("1/2", "0.5", True), ("\\frac12", "\\frac{2}{4}", True), ("-\\frac{3}{7}", "\\frac{-3}{7}", True), ("1/3", "0.3333", False),
    ("\\frac{7}{2}", "3.5", True), ("7", "-7", False), ("7", "70", False), ("0.25", "\\frac14", True), ("2.50", "2.5", True),
    ("1,250", "1250", True), ("1{,}250", "1250", True), ("12,345,678", "12345678", True), ("1.5\\times10^3", "1500", True),
    ("3\\cdot10^{-2}", "0.03", True), ("50\\%", "50", True, "Math-Verify 0.9.0 leaves a percent sign in a box as text"), ("50\\%", "0.5", True, "Math-Verify 0.9.0 leaves a percent sign in a box as text"), ("50", "0.5", False), ("\\$36", "36", True),
    ("x=5", "5", True), ("x=5", "y=5", False), ("x+1", "1+x", True), ("x-1", "1-x", False), ("2x+3y", "3y+2x", True),
    ("ab", "ac", False), ("x^2", "x^{2}", True), ("x^2", "x^3", False), ("\\sqrt{3}/2", "\\frac{\\sqrt{3}}{2}", True),
    ("\\sqrt{2}", "\\sqrt{3}", False), ("2\\sqrt{3}", "\\sqrt{3}\\cdot2", True), ("\\frac{1}{x}", "x^{-1}", True),
    ("\\pi", "2\\pi", False), ("2\\pi", "\\pi\\cdot2", True), ("\\frac{\\pi}{2}", "\\frac12\\pi", True), ("e^{x}", "e^x", True),
    ("\\sin x", "\\cos x", False), ("\\sin(x)", "\\sin x", True), ("(1,2)", "(1, 2)", True), ("(1,2)", "(2,1)", False),
    ("(1,2)", "(1,3)", False), ("(1,2,3)", "(1,2)", False), ("[1,2]", "(1,2)", False), ("[1,2)", "[1,2]", False),
    ("\\{1,2\\}", "\\{2,1\\}", True), ("\\{1,2\\}", "\\{1,3\\}", False), ("1,2", "2,1", True), ("1,2", "1,3", False),
    ("\\text{even}", "\\text{odd}", False), ("\\text{Evelyn}", "\\text{Evelyn}", True), ("x\\le5", "x\\leq5", True),
    ("x\\le5", "x<5", False), ("x>2", "x<2", False), ("(-\\infty,3]", "(-\\infty,3)", False), ("(2,\\infty)", "(2,\\infty)", True),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", True),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}", False), ("90^\\circ", "90", True),
    ("5\\text{ cm}", "5", True), ("5", "6", False), ("i", "-i", False), ("3+4i", "4i+3", True), ("3+4i", "3-4i", False),
    ("\\log 2", "\\log 3", False), ("x^2+2x+1", "1+2x+x^2", True), ("x^2+2x+1", "x^2+2x-1", False), ("\\frac{x}{2}", "0.5x", True),
    ("10^{6}", "1000000", True), ("-0.5", "-\\frac12", True), ("100", "10^2", True), ("\\dfrac{5}{6}", "\\tfrac{5}{6}", True),
    ("11", "1,1", False), ("0", "0.0", True), ("0", "1", False), ("6", "\\boxed{6}", True), ("n!", "n", False),
    ("17\\cdot23", "391", False, "a response that repeats its problem must not be right"),
    ("(x+1)^2", "x^2+2x+1", False, "no algebra is done"), ("\\sqrt{50}", "5\\sqrt{2}", False, "no arithmetic under a root"),
    ("2^{10}", "1024", False, "a response that repeats its problem must not be right"),
    ("-x>-1", "x<1", False, "no algebra is done"), ("x>2", "(2,\\infty)", False),
    ("1000", "1 000", True, "Math-Verify reads two numbers"), ("90^\\circ", "90°", True, "Math-Verify does not read the sign"),
    ("7.", "7", True, "Math-Verify fails on a full stop"), ("1,3", "(1,3)", False, "a pair has an order, a list has none"),
    ("52_8", "52", False, "52 in base 8 is 42"), ("\\frac12\\sqrt3", "\\frac{\\sqrt3}{2}", True),
]


def module(verl, name):
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(verl) / f"verl/utils/reward_score/{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write(name, rows):
    (HERE / name).write_text("".join(json.dumps(row, separators=(",", ":"), ensure_ascii=True) + "\n" for row in rows))
    print(f"{name}: {len(rows)} cases")


def math_dapo(scorer):
    cases = [(frame.format(*[answer] * frame.count("{}")), row[0])
             for i, row in enumerate(ANSWERS) for k, answer in enumerate(row[1:])
             for j, frame in enumerate(FRAMES) if j == 0 or (i + 2 * j + k) % 5 == 0]
    for (solution, truth), strict in itertools.product(cases + WRITTEN, (False, True)):
        if strict and "box" not in solution and len(solution) % 7:
            continue
        got = scorer.compute_score(solution, truth, strict_box_verify=strict)
        yield dict(solution=solution, ground_truth=truth, strict_box=strict, score=got["score"], acc=bool(got["acc"]), pred=got["pred"])


def gsm8k(scorer):
    for number, (solution, truth) in itertools.product(NUMBERS, GSM8K):
        solution, truth = solution.format(number), truth.format(number).replace(",", "")
        yield dict(solution=solution, ground_truth=truth,
                   **{kind: float(scorer.compute_score(solution, truth, method=kind)) for kind in ("strict", "flexible")},
                   **{f"extracted_{kind}": scorer.extract_solution(solution, kind) for kind in ("strict", "flexible")})


def pairs():
    from math_verify import parse, verify

    for a, b, same, *why in PAIRS:
        judged = bool(verify(parse(f"\\boxed{{{b}}}"), parse(f"\\boxed{{{a}}}")))
        if (judged != same) != bool(why):
            print(f"pairs: {a}   {b}: Math-Verify says {judged}, ours {same}: {'no reason is given' if not why else why[0]}")
            sys.exit(1)
        yield dict(a=a, b=b, same=same, math_verify=judged, **(dict(why=why[0]) if why else {}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    dapo = module(sys.argv[1], "math_dapo")
    write("math_dapo.jsonl", list(math_dapo(dapo)))
    inputs = NORMALIZED + [answer for row in ANSWERS for answer in row[1:]]
    write("normalize.jsonl", [dict(input=s, dapo_normalize=dapo.normalize_final_answer(s)) for s in dict.fromkeys(inputs)])
    write("gsm8k.jsonl", list(gsm8k(module(sys.argv[1], "gsm8k"))))
    write("pairs.jsonl", list(pairs()))
