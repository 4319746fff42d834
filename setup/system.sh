#!/usr/bin/env bash
# Installs the system packages that are missing, with apt-get as root or through sudo; otherwise says which they are.
set -euo pipefail
cd "$(dirname "$0")"
missing=()
for package in $(grep -v '^#' packages.txt); do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get > /dev/null; then
  echo "setup: this is not Debian or Ubuntu; install what these packages hold: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  run=()
elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
  run=(sudo)
else
  echo "setup: please install these packages as root: apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq
# A mirror that is being renewed answers some requests with an error: once more, then give up.
"${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null ||
  { sleep 5; "${run[@]}" apt-get update -qq; "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null; }
