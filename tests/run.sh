#!/usr/bin/env bash
# Runs GoogleTest programs one after another; the last line is "N passed, N failed, N skipped".
set -u
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"  # as the programs do (settle_threads)
passed=0 failed=0 skipped=0
for t in "$@"; do
  log=$(mktemp)
  start=$(date +%s.%N)
  "$t" --gtest_brief=1 --gtest_color=no >"$log" 2>&1
  rc=$?
  p=$(grep -oE '^\[  PASSED  \] [0-9]+' "$log" | grep -oE '[0-9]+' | head -1)
  f=$(grep -cE '^\[  FAILED  \] [^ ]+(, where| \()' "$log")
  s=$(grep -cE '^\[  SKIPPED \] .*\(' "$log")
  [ $rc -ne 0 ] && [ "$f" -eq 0 ] && f=1  # crashed before it could say so
  printf '%-28s %4d passed %3d failed %3d skipped  %6.1f s\n' "$(basename "$t")" "${p:-0}" "$f" "$s" "$(echo "$(date +%s.%N) - $start" | bc 2>/dev/null || echo 0)"
  [ "$s" -gt 0 ] && grep -B1 -A0 -iE 'skip' "$log" | grep -v '^--' | head -20
  [ $rc -ne 0 ] && cat "$log"
  passed=$((passed + ${p:-0})) failed=$((failed + f)) skipped=$((skipped + s))
  rm -f "$log"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
