#!/usr/bin/env bash
# The GPU suite: equal bits, compute-sanitizer, and the benchmark. On a machine without a GPU it says that it was not run.
set -euo pipefail
cd "$(dirname "$0")/.."
test=build/default/kernels/kernels_test
reason=$(.venv/bin/python -P -c 'from ruyicam.export.bench_gpu import why_not; print(why_not() or "")')
if [ -n "$reason" ]; then
  echo "GPU suite: not run: $reason"
  exit 0
fi
"$test" --gtest_filter='CudaParity*'
.venv/bin/pytest -q tests/test_gpu.py
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$test" --gtest_filter='CudaParity*'
  done
else
  echo "GPU suite: compute-sanitizer was not found, memory errors were not looked for"
fi
.venv/bin/ruyicam bench kernels
