#!/usr/bin/env bash
# Makes .venv with the package (editable), its tests' needs, and the CPU build of PyTorch that the tests are pinned to.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/complete
# The compiled module is part of the editable install, so its sources count too.
want=$(cat pyproject.toml setup/python.sh CMakeLists.txt cmake/cuda.cmake kernels/CMakeLists.txt $(find kernels/src kernels/include kernels/bindings kernels/cuda -type f | sort) | sha256sum)
[ -e "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $python is $("$python" -V 2>&1), Python 3.11 or newer is needed; set PYTHON" >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "setup: the venv module is missing; install python3-venv" >&2; exit 1; }
export PIP_DISABLE_PIP_VERSION_CHECK=1
if ! .venv/bin/python -c 'import importlib.metadata as m, sys; sys.exit(not m.version("torch").startswith("2.13.0"))' 2> /dev/null; then
  .venv/bin/pip install -q --no-warn-script-location torch==2.13.0
fi
.venv/bin/pip install -q --no-warn-script-location -e '.[rl,test]'
echo "$want" > "$stamp"
