# Entry points; the work is in scripts/. `make help` lists them.
SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
TRIPLE := x86_64-unknown-linux-gnu
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET_DIR)/$(TRIPLE)/release/nanovisor

.DEFAULT_GOAL := help
.PHONY: help setup build image demo test soak bench bench-coldstart lint fmt install clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install all that building, testing and the demo need (apt)
	@scripts/setup.sh build test demo

build: ## the release binary: one static file
	@scripts/setup.sh build
	$(CARGO) build --release --locked -p runtime
	@echo "built $(BIN)"

image: build ## the Debian root file system image (cached)
	@scripts/setup.sh image
	@scripts/build-rootfs.sh image

demo: build ## shell, Python and Node in a sandbox, on every platform, compared with native
	@scripts/setup.sh demo
	@scripts/demo.sh

test: ## all checks and tests, sampled where a full run takes long
	@scripts/setup.sh test
	@scripts/test.sh

soak: ## the same with nothing sampled
	@scripts/setup.sh test
	@NANOVISOR_SOAK=1 scripts/test.sh

bench: build ## side by side with native, runc and runsc
	@scripts/setup.sh bench
	@benches/run.py $(BENCH_ARGS)

bench-coldstart: build ## instances of an initialised Node and Python, beside runc and runsc
	@scripts/setup.sh bench
	@benches/coldstart.py $(BENCH_ARGS)

lint: ## formatting, clippy, structure
	@scripts/setup.sh build
	@scripts/lint.sh

fmt: ## format the code
	$(CARGO) fmt --all

install: build ## install the binary to $(DESTDIR)$(PREFIX)/bin, under both its names
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/nanovisor
	ln -sf nanovisor $(DESTDIR)$(PREFIX)/bin/containerd-shim-nanovisor-v1

clean: ## remove build results (not the cache)
	$(CARGO) clean
