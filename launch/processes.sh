#!/usr/bin/env bash
# Runs a program as N processes of one core each on this machine, which train one network over jax.distributed:
#   bash launch/processes.sh 2 -m experiments.train --stages=2 --workdir=runs/two
# Ctrl-C and SIGTERM reach every process; the exit status is the worst of theirs.
set -uo pipefail
count=${1:?usage: bash launch/processes.sh N -m PROGRAM --flag=value ...}
shift
python=${PYTHON:-python}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
pin() { if command -v taskset > /dev/null; then taskset -c "$1" "${@:2}"; else "${@:2}"; fi; }
cores=$(nproc)
pids=()
for ((i = 0; i < count; i++)); do
  pin $((i % cores)) "$python" "$@" --coordinator="127.0.0.1:$port" --num_processes="$count" --process_id="$i" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2> /dev/null' INT TERM
worst=0
for pid in "${pids[@]}"; do
  wait "$pid"
  status=$?
  while kill -0 "$pid" 2> /dev/null; do wait "$pid"; status=$?; done  # a trapped signal ends `wait` early
  ((status > worst)) && worst=$status
done
exit "$worst"
