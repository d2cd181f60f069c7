#!/usr/bin/env bash
# Prints the nsys and ncu commands for a program, and writes them to FOLDER/profile.sh: profile.sh FOLDER PROGRAM... (make profile).
set -eu
folder=$1
shift
{
  echo "nsys profile --trace=cuda,nvtx --cuda-graph-trace=node --force-overwrite=true -o $folder/step $*"
  echo "nsys stats --report nvtx_sum,cuda_gpu_kern_sum,cuda_api_sum $folder/step.nsys-rep"
  for range in update/ rollout/decode/; do
    echo "ncu --nvtx --nvtx-include $range --graph-profiling node --set full --launch-skip 50 --launch-count 60 -f -o $folder/$(basename $range) $*"
  done
} | tee "$folder/profile.sh"
