#!/usr/bin/env bash
# Makes build/sysroot-arm64: what the cross build for Jetson links against, unpacked and never installed, of this machine's own
# Debian release; and ONNX Runtime's aarch64 library. Needs Debian 12 or newer, root, and nothing of a Jetson.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/sysroot-arm64
libraries=$(grep -E '^(lib.*-dev|nlohmann-json3-dev|prometheus-cpp-dev|zlib1g-dev)$' setup/packages.txt | paste -sd,)
[ "$(cat "$out/complete" 2> /dev/null)" = "$libraries" ] && exit 0
tools=(crossbuild-essential-arm64 mmdebstrap qemu-user-static protobuf-compiler protobuf-compiler-grpc)
missing=()
for package in "${tools[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
rm -rf "$out"
echo "setup: unpacking $libraries for arm64"
{ cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2> /dev/null || true; } |
  mmdebstrap --quiet --mode=root --variant=extract --architectures=arm64 --include="$libraries,libc6-dev,libstdc++-12-dev,protobuf-compiler-grpc" \
    "$release" "$out" -
# Links that point outside the folder would lead to this machine's own files.
find "$out" -type l -lname '/*' -printf '%p %l\n' | while read -r link target; do
  ln -sfn "$(realpath -m --relative-to "$(dirname "$link")" "$out$target")" "$link"
done
wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
version=$(.venv/bin/python -c 'import onnxruntime; print(onnxruntime.__version__)')
.venv/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_34_aarch64 \
  --python-version 3.11 -d "$wheel" "onnxruntime==$version" 2> /dev/null
(cd "$wheel" && python3 -m zipfile -e ./*.whl unpacked)
mkdir -p "$out/onnxruntime/lib"
cp "$wheel"/unpacked/onnxruntime/capi/libonnxruntime.so.* "$out/onnxruntime/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$out/onnxruntime/lib/libonnxruntime.so"
cp -r build/onnxruntime/include build/onnxruntime/doc "$out/onnxruntime/"
echo "$libraries" > "$out/complete"
