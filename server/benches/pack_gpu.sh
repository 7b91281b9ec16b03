#!/usr/bin/env bash
# Builds the checks and timings of the libtorch executor and packs them into the folder $1, for a machine with a GPU that has
# Python with PyTorch, but neither Rust nor a network. The peers' wheels for the Python $2 are packed, too, where they can be had.
set -euo pipefail
into=$1 python=$2
here=$(dirname "$(readlink -f "$0")")
built=(--package mixfeed-server --features libtorch)

# The program that cargo has made, of the messages on standard input.
program() {
	python3 -c '
import json, sys
made = [json.loads(line).get("executable") for line in sys.stdin if line.startswith("{")]
print([path for path in made if path][-1])'
}

rm -rf "$into"
mkdir -p "$into"
cp "$(cargo test --release "${built[@]}" --lib --no-run --message-format=json | program)" "$into/conformance"
cp "$(cargo bench "${built[@]}" --bench torch --no-run --message-format=json | program)" "$into/torch"
strip "$into/conformance" "$into/torch"
cp "$here/gpu.py" "$here/peers/device_ops.py" "$into/"
for wheel in torchvision==0.26.0 kornia==0.9.0 kornia-rs==0.2.0; do
	"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$into/wheels" $wheel ||
		echo "$wheel cannot be had: its lines will be skipped" >&2
done
du -sh "$into"
