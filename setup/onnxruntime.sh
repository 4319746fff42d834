#!/usr/bin/env bash
# Makes build/onnxruntime/{include,lib}: the library of the Python wheel, the headers of the distribution.
# The C ABI is stable, so headers may be older than the library.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/onnxruntime
[ -e "$out/complete" ] && [ -e "$out/lib/libonnxruntime.so.1" ] && exit 0
rm -rf "$out" && mkdir -p "$out/include" "$out/lib" "$out/doc"

library=$(.venv/bin/python -c 'import glob, onnxruntime, os; print(glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", "libonnxruntime.so.*"))[0])')
ln -s "$library" "$out/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$out/lib/libonnxruntime.so"
# Who hands the library on hands these on with it.
cp "$(dirname "$library")"/../{LICENSE,ThirdPartyNotices.txt} "$out/doc/"

header() { find "$1" -name onnxruntime_cxx_api.h -printf '%h\n' 2>/dev/null | head -1; }
from=$(header /usr/include)
if [ -z "$from" ]; then
  # Debian 12 has no such package: take that one of Debian 13 from this machine's own mirror, unpacked, not installed.
  mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME) $(REPO_URI)' 2>/dev/null | awk '$2 == "bookworm" {print $3; exit}')
  if [ -z "$mirror" ]; then
    echo "setup: ONNX Runtime's C++ headers are missing: install libonnxruntime-dev, or set ONNXRUNTIME_ROOT to a folder with include/ and lib/" >&2
    exit 1
  fi
  lists=$(mktemp -d)
  trap 'rm -rf "$lists"' EXIT
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$lists/sources"
  options=(-qq -o Dir::Etc::SourceList="$lists/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$lists/lists"
           -o Dir::Cache="$lists/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  apt-get "${options[@]}" update
  (cd "$lists" && apt-get "${options[@]}" download libonnxruntime-dev)
  dpkg-deb -x "$lists"/libonnxruntime-dev_*.deb "$lists/unpacked"
  from=$(header "$lists/unpacked")
fi
cp "$from"/*.h "$out/include/"
touch "$out/complete"
