#!/usr/bin/env bash
# Downloads models and datasets from the Hugging Face hub with curl. Interrupted downloads are resumed, sizes are
# checked against the server's, and missing files are reported.
#
#   data/download.sh NAME [DIR]     a model goes to DIR/NAME (default models/NAME), a dataset to DIR (default datasets)
#   data/download.sh --list
#
# HF_ENDPOINT (default https://huggingface.co) names a mirror, HF_TOKEN is sent as the bearer token.
set -euo pipefail

endpoint=${HF_ENDPOINT:-https://huggingface.co}
sizes="0.5b 1.5b 3b 7b 14b 32b 72b"

# name, repository, file in it, local file name
datasets='
dapo-math-17k   BytedTsinghua-SIA/DAPO-Math-17k  data/dapo-math-17k.parquet               dapo-math-17k.parquet
aime-2024       BytedTsinghua-SIA/AIME-2024      data/aime-2024.parquet                   aime-2024.parquet
aime-2025       opencompass/AIME2025             aime2025-I.jsonl                         aime-2025-I.jsonl
aime-2025       opencompass/AIME2025             aime2025-II.jsonl                        aime-2025-II.jsonl
amc23           math-ai/amc23                    test-00000-of-00001.parquet              amc23.parquet
gsm8k           openai/gsm8k                     main/train-00000-of-00001.parquet        gsm8k-train.parquet
gsm8k           openai/gsm8k                     main/test-00000-of-00001.parquet         gsm8k-test.parquet
math-train      DigitalLearningGmbH/MATH-lighteval data/train-00000-of-00001.parquet      math-train.parquet
math-500        HuggingFaceH4/MATH-500           test.jsonl                               math-500.jsonl
'

die() { echo "download.sh: $*" >&2; exit 2; }

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

list() {
  for s in $sizes; do echo "qwen2.5-$s"; echo "qwen2.5-$s-instruct"; done
  awk 'NF {print $1}' <<<"$datasets" | uniq
}

auth=()
[ -z "${HF_TOKEN:-}" ] || auth=(-H "Authorization: Bearer $HF_TOKEN")

hub() { curl -sS -L --fail --connect-timeout 20 --retry 4 --retry-delay 2 "${auth[@]}" "$@"; }

# The size reported by the server: the hub's own header for large files, else that of the last response.
size_of() {
  hub -I "$1" | tr -d '\r' | awk '
    tolower($1) == "x-linked-size:" {linked = $2}
    tolower($1) == "content-length:" {length_ = $2}
    END {print linked ? linked : length_}'
}

bytes_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

failed=()

# fetch REPO_PATH REMOTE_FILE LOCAL_FILE [optional]: REPO_PATH is "owner/name" or "datasets/owner/name".
fetch() {
  local url="$endpoint/$1/resolve/main/$2" to=$3 want have
  if ! want=$(size_of "$url" 2>/dev/null) || [ -z "$want" ]; then
    [ "${4:-}" = optional ] || { echo "  MISSING  $2 (no answer from $url)"; failed+=("$2"); }
    return 0
  fi
  mkdir -p "$(dirname "$to")"
  if [ "$(bytes_of "$to")" = "$want" ]; then echo "  have     $to ($want bytes)"; return 0; fi
  rm -f "$to"  # complete under its name or not at all: another size is another file
  [ "$(bytes_of "$to.part")" -le "$want" ] || rm -f "$to.part"
  if [ "$(bytes_of "$to.part")" != "$want" ]; then
    echo "  get      $to ($want bytes)"
    hub -C - -o "$to.part" "$url" || { echo "  FAILED   $2 (run the same command again to resume)"; failed+=("$2"); return 0; }
  fi
  have=$(bytes_of "$to.part")
  if [ "$have" != "$want" ]; then
    echo "  FAILED   $2 ($have bytes instead of $want: run the same command again)"; failed+=("$2"); return 0
  fi
  mv "$to.part" "$to"
}

model() {
  local name=$1 to=$2 size repo shards
  size=${name#qwen2.5-}; size=${size%-instruct}
  repo="Qwen/Qwen2.5-${size^^}"
  [[ $name != *-instruct ]] || repo+="-Instruct"
  echo "$endpoint/$repo -> $to"
  for f in config.json generation_config.json tokenizer.json tokenizer_config.json; do fetch "$repo" "$f" "$to/$f"; done
  fetch "$repo" model.safetensors.index.json "$to/model.safetensors.index.json" optional
  if [ -f "$to/model.safetensors.index.json" ]; then
    shards=$(grep -oE '"[A-Za-z0-9._-]+\.safetensors"' "$to/model.safetensors.index.json" | tr -d '"' | sort -u)
    for f in $shards; do fetch "$repo" "$f" "$to/$f"; done
  else
    fetch "$repo" model.safetensors "$to/model.safetensors"
  fi
}

dataset() {
  local name=$1 to=$2 id repo file here
  while read -r id repo file here; do
    [ "$id" != "$name" ] || fetch "datasets/$repo" "$file" "$to/$here"
  done <<<"$datasets"
}

case ${1:-} in
  "" | -h | --help) usage; exit 0 ;;
  --list) list; exit 0 ;;
esac
command -v curl >/dev/null || die "curl is needed: apt-get install curl"
names=$(list | xargs)
[[ " $names " == *" $1 "* ]] || die "unknown name \"$1\": one of $names"
if [[ $1 == qwen2.5-* ]]; then model "$1" "${2:-models}/$1"; else dataset "$1" "${2:-datasets}"; fi
if [ ${#failed[@]} -gt 0 ]; then die "not complete, missing: ${failed[*]}"; fi
echo "complete"
