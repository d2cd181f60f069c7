#!/usr/bin/env bash
# Packs programs into a folder that runs on a bare GPU machine: dist.sh BUILD_FOLDER DIST_FOLDER (make dist).
# glibc and CUDA's libraries are that machine's; all others are included. Programs and libraries are packed in one archive,
# which gpu-check unpacks into its own folder.
set -eu
from=$1 to=$2 limit=40000000
rm -rf "$to"
mkdir -p "$to/bin" "$to/lib/fallback" "$to/configs"
for p in dapo_train dapo bench_ops bench_step; do strip -o "$to/bin/$p" "$from/$p"; done
strip -o "$to/bin/test_cuda" "$from/test_gpu"
cp configs/demo*.cfg "$to/configs"
cp bench/gpu_check.py "$to/gpu-check"
cp bench/gpu_machine.py bench/gpu_report.py bench/gpu_ratios.py bench/gpu_peers.py "$to"
# The folder's libraries are found relative to the program (RPATH $ORIGIN/../lib), by name; here they are still the system's.
for library in $(ldd "$to"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u); do
  name=$(basename "$library") folder=$to/lib
  case $name in
    libc.so.*|libm.so.*|libdl.so.*|librt.so.*|libpthread.so.*|ld-linux*) continue ;;
    libstdc++.so.*|libgcc_s.so.*) folder=$to/lib/fallback ;;  # used if that machine's are older or missing
  esac
  cp -L "$library" "$folder/$name"
  strip --strip-unneeded "$folder/$name" 2>/dev/null || true
done
readelf -V "$to"/bin/* "$to"/lib/*.so* "$to"/lib/fallback/* 2>/dev/null | grep -oE 'GLIBC_2\.[0-9]+' | sort -t. -k2 -n | tail -1 |
  sed 's/GLIBC_//' >"$to/glibc"
# One stream: the programs contain the same kernels five times, which compress to the size of one copy.
tar -C "$to" -cf - bin lib | xz -9 -T1 >"$to/programs.tar.xz"
rm -r "$to/bin" "$to/lib"
bytes=$(find "$to" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
printf '%s: %.1f MB, glibc %s or later; on the GPU machine: python3 %s/gpu-check\n' "$to" "$(awk "BEGIN { print $bytes / 1e6 }")" "$(cat "$to/glibc")" "$to"
[ "$bytes" -lt "$limit" ] || { echo "dist.sh: $bytes bytes, $limit are the limit"; exit 1; }
# The golden models of the tests: those in the tree, and the larger ones if present; not counted in the size limit.
mkdir -p "$to/goldens"
cp -r tests/goldens/{models,sampling} "$to/goldens"
goldens=${DAPO_TEST_DATA:-../shared/data}/goldens
if [ -d "$goldens" ]; then
  mkdir -p "$to/data/goldens"
  cp -r "$goldens"/{tied_gqa,untied_kv1,llama,d64,d128,sampling.jsonl} "$to/data/goldens"
  echo "$to/data: golden models, $(du -sm "$to/data" | cut -f1) MB"
else
  echo "$to: the tree's two golden models alone: no $goldens (DAPO_TEST_DATA)"
fi
nm -C "$from/bench_ops" | grep -q cudnn_frontend && echo "$to: bench_ops times cuDNN's attention beside ours" ||
  echo "$to: bench_ops without cuDNN's attention: that takes cudnn.h and the frontend's headers (make bench-cudnn)"
