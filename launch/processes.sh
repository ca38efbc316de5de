#!/usr/bin/env bash
# Runs a program as N processes of one core each on this machine, which train one network over jax.distributed:
#   bash launch/processes.sh 2 -m experiments.train --stages=2 --workdir=runs/two
# Ctrl-C, SIGTERM and a closed terminal reach the programs as one SIGTERM; it waits for them, and its exit status is the
# worst of theirs.  When one fails, the others leave by themselves; one that is still here a minute later is killed.
# PYTHON= chooses the interpreter, PORT= the port on which they meet, LINGER= the seconds of that minute.
set -uo pipefail
usage="usage: bash launch/processes.sh N -m PROGRAM --flag=value ..., with N processes from 1 on"
[[ ${1:-} =~ ^[1-9][0-9]*$ && $# -gt 1 ]] || { echo "error: $usage" >&2; exit 2; }
python=${PYTHON:-python}
"$python" -c "" || { echo "error: PYTHON=$python does not run; name a Python 3.11 or later" >&2; exit 2; }
exec "$python" "${0%/*}/processes.py" "$@"  # bash 5.2 may lose a status when a signal comes as a program ends
