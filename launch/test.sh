#!/usr/bin/env bash
# Makes an environment in .venv-test and runs lint, types, doctests and tests; then, where a Python 3.12 or later is
# found, the exactness tests on the newest jax as well (in .venv-newest).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
python=$(find_python 11 ${PYTHON:-} python3.11 python3 python) || {
  echo "error: no Python 3.11 or later with venv was found; install one, or name it: PYTHON=/path/to/python bash $0" >&2
  exit 2
}
export PIP_NO_COMPILE=1  # a third of the time of an installation; what is imported is compiled then
# Both at once: an installation has work for one core.
newest=$(find_python 12 ${PYTHON_NEWEST:-} python3.14 python3.13 python3.12 ~/.pyenv/versions/3.1[2-9]*/bin/python3) || newest=
if [ -n "$newest" ]; then
  environment .venv-newest "$newest" "[test,tpu]" &  # tpu: the compiler alone, for chips that need not be here
  installing=$!
fi
environment .venv-test "$python" "[dev,tensorflow]"
bin=.venv-test/bin
# Tests write thousands of small files and wait for the disk each time: into memory, where there is enough, and where
# programs may lie as well.
free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1) || free=0
within=${TMPDIR:-/tmp}
if [ -z "${TMPDIR:-}" ] && [ "$free" -gt 4000000 ] && ! findmnt -no OPTIONS -T /dev/shm | grep -q noexec; then
  within=/dev/shm
fi
TMPDIR=$(mktemp -d "$within/localgrad-XXXXXX")
trap 'rm -rf "$TMPDIR"' EXIT
# Programs that several processes compile are compiled once.
JAX_COMPILATION_CACHE_DIR=$TMPDIR/compiled
export TMPDIR JAX_COMPILATION_CACHE_DIR JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.3
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy" > "$TMPDIR/types" 2>&1 &  # beside the first tests, which leave a core idle now and then
types=$!
"$bin/python" -m pytest -n 2 --dist loadfile -m "not slow and not full"
wait "$types" || { cat "$TMPDIR/types" >&2; exit 1; }
# By test and not by file, one at a time: they share nothing, some take a minute, and some wait for most of it, so there
# is a third worker.  What compares no bits of two programs is compiled quickly.
"$bin/python" -m pytest -n 3 --maxschedchunk=1 -m "slow and not full and not bits" --durations=40
"$bin/python" -m pytest -n 2 --maxschedchunk=1 -m "bits and not full" --durations=5
if [ -n "$newest" ]; then
  wait "$installing"
  .venv-newest/bin/python -m pytest -n 2 -m "not full" \
    -k "digests_are_equal or cnn-norm or test_memory_grows or test_xla or test_compile_for" \
    tests/test_xla.py tests/machines tests/pipeline/test_exactness.py tests/pipeline/test_float64.py tests/pipeline/test_program.py
else
  echo "no Python 3.12 or later: the exactness tests ran on $("$bin/python" -c 'import jax; print("jax", jax.__version__)') only"
fi
