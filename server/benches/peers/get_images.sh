#!/usr/bin/env bash
# Builds the photographs that the benches decode: OUT/jpegs/{train,val}/<photo>/NNNN.jpg, 500x375, the same bytes every time.
# Takes large photographs (CC BY, CC BY-SA, CC0; see the packages' copyright files) from two Debian packages, which are
# unpacked in a temporary folder and not installed. Does nothing when OUT holds a complete set.
# usage: PYTHON=python-with-pillow get_images.sh OUT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:?usage: get_images.sh OUT}")
python=$(command -v "${PYTHON:-python3}")
[[ -f $out/jpegs/complete ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt's download user writes here
cd "$work"
apt-get download -qq lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 2>/dev/null ||
  { apt-get update -qq && apt-get download -qq lomiri-wallpapers-16.04 lomiri-wallpapers-20.04; }
for package in ./*.deb; do dpkg-deb -x "$package" unpacked; done
rm -rf "$out/jpegs"
"$python" "$here/make_jpegs.py" unpacked/usr/share/backgrounds "$out/jpegs" 64 16
touch "$out/jpegs/complete"
