# make demo [CLIP=path or URL]   plays a real clip the whole way
# make test                      every test that needs no special hardware
# make test-gpu                  the CUDA kernels on this machine's GPU: bits, memory errors, speed; says so if there is none
# All do their own set-up first (make setup); a second run installs and builds nothing.
.PHONY: setup demo test test-gpu proto clean
.DELETE_ON_ERROR:

setup:
	@bash setup/system.sh
	@bash setup/python.sh
	@bash setup/onnxruntime.sh
	@[ -e build/default/build.ninja ] || cmake --preset default > build/configure.log || { tail -n 20 build/configure.log; exit 1; }
	@cmake --build build/default > build/build.log || { tail -n 40 build/build.log; exit 1; }

demo: setup
	@.venv/bin/ruyicam demo $(if $(CLIP),--clip '$(CLIP)')

test: setup
	@.venv/bin/ruff check cloud export kernels tests
	@ctest --preset default --no-tests=error
	@.venv/bin/pytest

test-gpu: setup
	@bash setup/test-gpu.sh

# Renews the description of the wire that the Python side reads.
proto:
	protoc -Iedge/proto --descriptor_set_out=cloud/wire/uplink.desc edge/proto/ruyicam/v1/uplink.proto

clean:
	rm -rf build .venv
