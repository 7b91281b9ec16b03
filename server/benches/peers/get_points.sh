#!/usr/bin/env bash
# Puts the classified survey tiles that the benches and tests read into OUT/points: *.las and *.laz, the same bytes every
# time. They are test data of the Python package laspy (BSD-2-Clause; see demo-data/NOTICE.md for where the tiles are
# from), whose source package is fetched from the package registry that pip is set up for; nothing of it is built or
# installed. Does nothing when OUT holds a complete set.
# usage: PYTHON=python-with-pip get_points.sh OUT
set -euo pipefail
out=$(realpath -m "${1:?usage: get_points.sh OUT}")
python=$(command -v "${PYTHON:-python3}")
[[ -f $out/points/complete ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/requirements.txt" <<'LIST'
laspy==2.7.0 --hash=sha256:f56feb5445e75d6ff12ee814aab6a35339290e75264ff277c6bf553f3025a3f5
LIST
# `pip download` wants to know what a source package needs and starts its build backend, whose packages it installs in a
# temporary folder of its own.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary laspy --require-hashes \
  --dest "$work" --requirement "$work/requirements.txt"
rm -rf "$out/points"
mkdir -p "$out/points"
tar -xzf "$work/laspy-2.7.0.tar.gz" -C "$out/points" --strip-components=3 --wildcards \
  'laspy-2.7.0/tests/data/*.la[sz]'
touch "$out/points/complete"
