#!/usr/bin/env bash
# Registers, static shared memory, spills and the occupancy that registers allow of every kernel, from what
# `nvcc --resource-usage` said (one log an object file). Exit 1 if a kernel spills. usage: report.sh [--check] LOG...
set -eu
[ "${1:-}" = --check ] && { check=1; shift; } || check=0
cat "$@" | awk -v check="$check" '
  /Compiling entry function/ { split($0, q, "\047"); name = q[2]; arch = q[4] }
  /bytes stack frame/ { stack = $1; spills = $5 + $9 }
  /Used [0-9]+ registers/ {
    regs = $0; sub(/.*Used /, "", regs); sub(/ .*/, "", regs); regs += 0
    smem = 0; if (match($0, /[0-9]+ bytes smem/)) smem = substr($0, RSTART, RLENGTH) + 0
    # Registers are given out by 256 a warp, of 65536; an SM runs 64 warps at most.
    warps = int(65536 / (int((regs * 32 + 255) / 256) * 256)); if (warps > 64) warps = 64
    if (spills > 0) bad++
    if (!check || spills > 0) printf "%s\t%d\t%d\t%d\t%d\t%d%%\t%s\n", arch, regs, smem, stack, spills, 100 * warps / 64, name
    count[arch]++; if (regs > most[arch]) most[arch] = regs
  }
  END {
    for (a in count) printf "%s: %d kernels, at most %d registers, %d with spills (both architectures together)\n", a, count[a], most[a], bad | "cat 1>&2"
    exit bad > 0 || length(count) == 0
  }' | sort -k1,1 -k7,7 | c++filt | sed -E 's/dapo::|\(anonymous namespace\)::|cuda:://g' |
  { [ "$check" = 1 ] || printf 'arch\tregs\tsmem\tstack\tspills\toccup\tkernel\n'; cat; } | expand -t 9
exit "${PIPESTATUS[1]}"
