#!/usr/bin/env bash
# data/download.sh against a hub of our own on the loopback: whole, resumed, resized and missing files, shards, token.
# Exit 77 where python3 or curl is absent.
set -euo pipefail
export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
command -v python3 >/dev/null && command -v curl >/dev/null || exit 77
script=$(realpath "$(dirname "$0")/../../data/download.sh")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"

cat >hub.py <<'PY'
import http.server, os, re, sys
class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        path = "hub" + self.path.replace("/resolve/main", "")
        with open("requests.log", "a") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('Range')} {self.headers.get('Authorization')}\n")
        if not os.path.isfile(path):
            self.send_error(404)
            return
        data = open(path, "rb").read()
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(start[1]) if start else None
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - (start or 0)))
        self.end_headers()
        if body:
            self.wfile.write(data[start or 0:])
    def do_GET(self): self.answer(True)
    def do_HEAD(self): self.answer(False)
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
open("port.tmp", "w").write(str(server.server_port))
os.rename("port.tmp", "port")
server.serve_forever()
PY
repo=hub/Qwen/Qwen2.5-0.5B
big=hub/Qwen/Qwen2.5-1.5B-Instruct
mkdir -p "$repo" "$big" hub/datasets/openai/gsm8k/main
for f in config.json generation_config.json tokenizer.json tokenizer_config.json; do
  echo "$f of the small one" >"$repo/$f"
  echo "$f of the big one" >"$big/$f"
done
head -c 300000 /dev/urandom >"$repo/model.safetensors"
head -c 1000 /dev/urandom >"$big/model-00001-of-00002.safetensors"
head -c 2000 /dev/urandom >"$big/model-00002-of-00002.safetensors"
echo '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
  "c": "model-00002-of-00002.safetensors"}}' >"$big/model.safetensors.index.json"
echo train >hub/datasets/openai/gsm8k/main/train-00000-of-00001.parquet

python3 hub.py & server=$!
until [ -f port ]; do kill -0 "$server" || { echo "FAILED: the hub does not start"; exit 1; }; sleep 0.1; done
HF_ENDPOINT="http://127.0.0.1:$(cat port)"
export HF_ENDPOINT
fail() { echo "FAILED: $*"; cat out.txt 2>/dev/null || true; exit 1; }

"$script" qwen2.5-0.5b >out.txt || fail "a whole model"
diff -r "$repo" models/qwen2.5-0.5b || fail "files differ"
: >requests.log
"$script" qwen2.5-0.5b >out.txt || fail "a second time"
if grep -q GET requests.log; then fail "fetched what was there"; fi

rm models/qwen2.5-0.5b/model.safetensors
head -c 123456 "$repo/model.safetensors" >models/qwen2.5-0.5b/model.safetensors.part
HF_TOKEN=secret "$script" qwen2.5-0.5b >out.txt || fail "resume"
grep -q "GET .*model.safetensors bytes=123456- Bearer secret" requests.log || fail "did not go on at byte 123456 with the token"
cmp "$repo/model.safetensors" models/qwen2.5-0.5b/model.safetensors || fail "resumed file differs"

echo "another size than it had: the newer file" >"$repo/config.json"
"$script" qwen2.5-0.5b >out.txt || fail "changed size"
cmp "$repo/config.json" models/qwen2.5-0.5b/config.json || fail "did not fetch the newer file"

"$script" qwen2.5-1.5b-instruct here >out.txt || fail "shards"
diff -r "$big" here/qwen2.5-1.5b-instruct || fail "shards differ"

if "$script" gsm8k >out.txt 2>&1; then fail "a missing file was not noticed"; fi
grep -q "missing: main/test-00000-of-00001.parquet" out.txt || fail "the missing file is not named"
[ "$(cat datasets/gsm8k-train.parquet)" = train ] || fail "the other file was not fetched"
if "$script" nothing >out.txt 2>&1; then fail "an unknown name passed"; fi
grep -q "unknown name" out.txt || fail "the unknown name is not named"
echo passed
