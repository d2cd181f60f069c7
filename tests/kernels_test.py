#!/usr/bin/env python3
"""Every kernel in cuda/ was launched by test_cuda: the symbols of the simulator's objects against its list of launches.

SIM_OBJECTS: the folder of the objects; KERNELS_LAUNCHED: the file that test_cuda appended to (make run-tests sets both).
Prints its results as GoogleTest does.
"""
import os, pathlib, re, subprocess, sys


def name(symbol):
    """A kernel's name with its template arguments, without those of the function."""
    return re.sub(r"\(.*", "", symbol.strip().removeprefix("void ").replace("(anonymous namespace)::", ""))


objects = sorted(pathlib.Path(os.environ["SIM_OBJECTS"]).glob("*.cu.o"))
symbols = subprocess.run(["nm", "-C", "--defined-only", *objects], capture_output=True, text=True, check=True).stdout
kernels = {name(m[1]) for m in re.finditer(r"^[0-9a-f]+ [tTwW] (.*_kernel[<(].*)$", symbols, re.M) if "::operator()" not in m[1] and "[clone" not in m[1]}
kernels = {k for k in kernels if re.search(r"_kernel(<|$)", k)}
launched = {name(line) for line in open(os.environ["KERNELS_LAUNCHED"])}
for k in sorted(kernels - launched):
    print("never launched:", k)
print(f"{len(kernels & launched)} of {len(kernels)} kernels were launched")
if kernels - launched or not kernels:
    print("[  FAILED  ] Kernels.AreAllLaunched (0 ms)")
    sys.exit(1)
print("[  PASSED  ] 1 test.")
