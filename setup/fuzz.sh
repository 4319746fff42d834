#!/usr/bin/env bash
# Installs what the fuzz preset builds with.
set -euo pipefail
command -v clang++-19 > /dev/null && exit 0
echo "setup: installing clang-19"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang-19 libclang-rt-19-dev > /dev/null
