#!/usr/bin/env bash
# Runs GoogleTest programs one after another; the last line is "N passed, N failed, N skipped".
set -u
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"  # as the programs do (settle_threads)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0
# The number in GoogleTest's last lines, such as "[  PASSED  ] 12 tests."; 0 if there is none.
count() { sed -nE "s/^\[  $1 +\] ([0-9]+) tests?.*/\1/p" "$2" | awk 'NR == 1 { n = $1 } END { print n + 0 }'; }
for t in "$@"; do
  name=$(basename "$t") start=$(date +%s.%N) p=0 f=0 s=0
  # The simulator under ASan is single-threaded: one process per core, each with its share of the tests.
  case $name in test_cuda) shards=$(nproc) ;; *) shards=1 ;; esac
  pids=()
  for i in $(seq 0 $((shards - 1))); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i DAPO_SIM_KERNELS=$([ $name = test_cuda ] && echo "${KERNELS_LAUNCHED:-}") "$t" --gtest_brief=1 --gtest_color=no >"$logs/$i" 2>&1 &
    pids+=($!)
  done
  for i in "${!pids[@]}"; do
    wait "${pids[$i]}"
    rc=$?
    log=$logs/$i
    here=$(grep -cE '^\[  FAILED  \] [^ ]+(, where| \()' "$log")
    [ $rc -ne 0 ] && [ "$here" -eq 0 ] && here=1  # crashed before it could report a failure
    p=$((p + $(count PASSED "$log"))) f=$((f + here)) s=$((s + $(count SKIPPED "$log")))
    grep -hE '^skipped: ' "$log" | sort | uniq -c | head -20
    [ $rc -ne 0 ] && cat "$log"
  done
  printf '%-28s %4d passed %3d failed %3d skipped  %6.1f s\n' "$name" $p $f $s "$(awk "BEGIN { print $(date +%s.%N) - $start }")"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
