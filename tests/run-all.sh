#!/usr/bin/env bash
# All tests, as three runs at once, for most of the time of the first two is spent waiting: those that need the Docker Engine, whose
# output is seen as it comes; those on real processes; and the rest.
#   tests/run-all.sh PYTHON
set -uo pipefail
set -m # the runs in the background are groups of their own, and an interrupt reaches them from here alone
cd "$(dirname "$0")/.."
python=$1
outputs=$(mktemp -d)
runs=()
beside() {
    "$python" -m pytest -p no:cacheprovider --durations=10 "${@:2}" >"$outputs/$1" 2>&1 &
    runs+=($!)
}
trap 'kill -INT "${runs[@]}" 2>/dev/null && wait "${runs[@]}"; rm -rf "$outputs"' EXIT
trap 'exit 130' INT TERM
beside processes -m "not docker" tests/engine tests/deploy
beside rest --ignore=tests/engine --ignore=tests/deploy
failed=0
"$python" -m pytest --durations=10 -m docker tests/engine tests/deploy || failed=1
for run in "${runs[@]}"; do
    wait "$run" || failed=1
done
cat "$outputs"/*
exit "$failed"
