# Sourced by the other scripts: `environment FOLDER PYTHON EXTRAS` makes a virtual environment with this project in it.
environment() {
  local folder=$1 python=$2 extras=$3 stamp compile=--compile-bytecode
  [ -z "${PIP_NO_COMPILE:-}" ] || compile=
  stamp="$extras $("$python" --version 2>&1) $(cksum < pyproject.toml)"
  if [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "installing into $folder ($("$python" --version 2>&1))"
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet uv  # takes a quarter of pip's time
    # Where only pip is told of an index or of a proxy, uv finds nothing.
    "$folder/bin/uv" pip install --quiet $compile --python "$folder/bin/python" --editable ".$extras" ||
      "$folder/bin/python" -m pip install --quiet --editable ".$extras"
    echo "$stamp" > "$folder/stamp"
  fi
}

# The first of the named interpreters that runs, is at least Python 3.MINOR and can make environments.
find_python() {
  local minor=$1 candidate
  shift
  for candidate in "$@"; do
    if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}
