#!/usr/bin/env bash
# Runs a program as N processes of one core each on this machine, which train one network over jax.distributed:
#   bash launch/processes.sh 2 -m experiments.train --stages=2 --workdir=runs/two
# Ctrl-C, SIGTERM and a closed terminal reach the programs as one SIGTERM; it waits for them, and its exit status is the
# worst of theirs.  When one fails, the others leave by themselves; one that is still here a minute later is killed.
# PYTHON= chooses the interpreter, PORT= the port on which they meet, LINGER= the seconds of that minute.
set -uo pipefail
usage="usage: bash launch/processes.sh N -m PROGRAM --flag=value ..., with N processes from 1 on"
[[ ${1:-} =~ ^[1-9][0-9]*$ && $# -gt 1 ]] || { echo "error: $usage" >&2; exit 2; }
count=$1
LOCALGRAD_COMMAND="bash launch/processes.sh $(printf '%q ' "$@")"
export LOCALGRAD_COMMAND LOCALGRAD_LAUNCHER=$$  # how to go on; whose end is theirs
shift
python=${PYTHON:-python}
# A port below those that the system hands out by itself, and the cores that this program may use.
look='
import os, random, socket
while True:
    with socket.socket() as found:
        try:
            found.bind(("127.0.0.1", port := random.randrange(15000, 30000)))
        except OSError:
            continue
        break
cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
print(port, *sorted(cores))'
read -r port cores <<< "$("$python" -c "$look")"
[[ -n $port ]] || { echo "error: PYTHON=$python does not run; name a Python 3.11 or later" >&2; exit 2; }
port=${PORT:-$port}
read -ra cores <<< "$cores"

pids=() stopped=0
stop() {
  stopped=1
  kill -TERM ${pids[@]+"${pids[@]}"} 2> /dev/null
}
trap stop INT TERM HUP
for ((i = 0; i < count && !stopped; i++)); do
  pin=()
  command -v taskset > /dev/null && pin=(taskset -c "${cores[i % ${#cores[@]}]}")
  {
    trap '' INT HUP  # what a terminal sends to all comes from here, as one SIGTERM
    # `exec`: the process that gets the signal is the program, not a shell before it.
    exec ${pin[@]+"${pin[@]}"} "$python" "$@" \
      --coordinator="127.0.0.1:$port" --num_processes="$count" --process_id="$i"
  } &
  pids+=($!)
done

worst=0 failed=
while ((${#pids[@]})); do
  left=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2> /dev/null; then
      left+=("$pid")
    else
      wait "$pid"
      status=$?
      ((status > worst)) && worst=$status
      ((status)) && failed=${failed:-$SECONDS}
    fi
  done
  pids=(${left[@]+"${left[@]}"})
  if [[ -n $failed ]] && ((SECONDS - failed >= ${LINGER:-60})); then kill -KILL "${pids[@]}" 2> /dev/null; fi
  ((${#pids[@]})) && { sleep 0.5 & wait $!; }
done
exit "$worst"
