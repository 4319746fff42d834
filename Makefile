# make demo [CLIP=path or URL]   plays a real clip the whole way
# make test                      every test that needs no special hardware
# make test-faults               device and service in the field: kills, bad links, full disks, torn writes, clocks that jump (as root)
# make test-gpu                  the CUDA kernels on this machine's GPU: bits, memory errors, speed; says so if there is none
# make test-aarch64              the Jetson builds, from elsewhere: C++ tests under qemu (Debian, as root)
# make fuzz [SECONDS=600] [TARGETS=edge/bundle]   the fuzz targets of kernels and edge, so long each (Debian, as root)
# make fuzz-service [SECONDS=600]   the same for what the service reads from devices
# Two tests run at a time, so that each has one thread for its numbers.
# All do their own set-up first (make setup); a second run installs and builds nothing.
.PHONY: setup demo test test-faults test-gpu test-aarch64 fuzz fuzz-service proto clean
SECONDS ?= 600
TARGETS ?= kernels/mapping kernels/preprocess $(addprefix edge/,bundle config credentials inputs ledger records slots spool wire)
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
	@OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist loadfile --durations 10

test-faults: setup
	@.venv/bin/pytest tests/faults

test-gpu: setup
	@bash setup/test-gpu.sh

test-aarch64: setup
	@bash setup/aarch64.sh
	@for preset in jetson-orin jetson-thor; do \
	  cmake --preset $$preset > build/configure.log && cmake --build build/$$preset > build/build.log || { tail -n 40 build/build.log; exit 1; }; \
	  ctest --preset $$preset --no-tests=error || exit 1; \
	done

fuzz: setup
	@bash setup/fuzz.sh
	@cmake --preset fuzz > build/configure.log && cmake --build build/fuzz > build/build.log || { tail -n 40 build/build.log; exit 1; }
	@for target in $(TARGETS); do \
	  name=$$(basename $$target); \
	  mkdir -p build/fuzz/corpus/$$name; \
	  echo "fuzz: $$target"; \
	  build/fuzz/$${target}_fuzz -max_total_time=$(SECONDS) -max_len=16384 -timeout=30 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name $$(ls -d $$(dirname $$target)/fuzz/seeds/$$name 2> /dev/null) || exit 1; \
	done

# A minute at a time: watching Python's lines costs memory for as long as it goes on.
fuzz-service: setup
	@.venv/bin/pip install -q 'atheris>=2.3'
	@mkdir -p build/fuzz-service
	@left=$(SECONDS); while [ $$left -gt 0 ]; do \
	  .venv/bin/python tests/uplink_fuzz.py -max_total_time=$$((left < 60 ? left : 60)) -max_len=16384 -timeout=30 \
	    -rss_limit_mb=8192 -verbosity=0 -print_final_stats=1 -artifact_prefix=build/fuzz-service/ build/fuzz-service/corpus || exit 1; \
	  left=$$((left - 60)); \
	done

# Renews the description of the wire that the Python side reads.
proto:
	protoc -Iedge/proto --descriptor_set_out=cloud/wire/uplink.desc edge/proto/ruyicam/v1/uplink.proto

clean:
	rm -rf build .venv
