# omni: build, test and try it. `make help` lists what there is.
#
# Variables, on the command line or in the environment:
#   OMNI_TORCH_DIR  your own libtorch (>= 2.11): a folder with include/ and lib/. Default: fetched into .deps
#   OMNI_CUDA_DIR   the CUDA runtime and CUPTI that this libtorch needs: a folder with lib/
#   TAGS            Go build tags; TAGS=cuda builds the worker with its CUDA part (docs/cuda.md)
#   CUDA_LIBS       1: with TAGS=cuda, fetch the CUDA libraries too (2.1 GB), which a machine with a GPU needs
#   JOBS            parallel compile jobs. Default: the number of cores
#   OMNI_BASE       the commit that `make test` compares with for clang-tidy. Default: where the branch left origin's main
#   FUZZTIME        how long `make fuzz` runs each target. Default: 60s

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

OMNI_TORCH_DIR ?= $(CURDIR)/.deps/torch
OMNI_CUDA_DIR ?= $(CURDIR)/.deps/nvidia/cu13
JOBS ?= $(shell nproc)
FUZZTIME ?= 60s
TAGS ?=
CUDA_LIBS ?= 0
export OMNI_TORCH_DIR OMNI_CUDA_DIR JOBS FUZZTIME TAGS CUDA_LIBS

.PHONY: help deps build build-tests test sanitize lint format fuzz oracle soak clients bench bench-profiler demo env clean

help: ## this list
	@echo "Targets:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'
	@echo
	@sed -nE '3,11s/^# ?//p' Makefile

deps: ## check tools, install missing headers, fetch libtorch into .deps (once)
	@scripts/deps.sh

build: deps ## libomni.so into build/lib, commands into bin
	@scripts/build.sh

build-tests: deps ## build, and the C++ tests and benchmarks: then plain `go test` and ctest work
	@scripts/build.sh all

test: ## everything that CI runs: lint, C++ and Go tests, sanitizers, CUDA build, demo, clients, trace viewers
	@scripts/test.sh

sanitize: deps ## package torch over the C++ library under address and undefined-behaviour sanitizers
	@scripts/sanitize.sh

lint: deps build ## gofumpt, go.mod, golangci-lint, clang-format, clang-tidy on all files, shellcheck
	@scripts/lint.sh

format: deps ## rewrite Go, C and C++ sources in the checked format
	@scripts/lint.sh --fix

fuzz: build-tests ## run every fuzz target for FUZZTIME
	@scripts/fuzz.sh

oracle: build-tests ## both recorders over a million ops must hold the same events (minutes)
	@OMNI_ORACLE_OPS=1000000 build/csrc/tests/recorder_oracle_test

soak: ## 10,000 requests to a server, 64 at once, a fifth of which the client leaves: none lost, no memory kept
	@OMNI_SOAK_REQUESTS=10000 go test -run '^TestSoak$$' -count 1 -v ./api

clients: build ## curl, the OpenAI SDK, a Prometheus parser and schemathesis against a server
	@scripts/clients.sh

bench: build ## speed of the engines and of a whole request, beside the reference where it is installed
	@scripts/bench.sh

bench-profiler: build-tests ## what profiling costs, with both recorders and with torch.profiler
	@scripts/bench_profiler.sh

demo: build ## make a random checkpoint, run a prompt through all stages with profiling, say where the files are
	@scripts/demo.sh

env: ## print the shell line that lets plain `go build` and `go test` find the library: eval "$(make env)"
	@scripts/env.sh

clean: ## remove what build, test and demo made; libtorch in .deps stays
	rm -rf build bin demo profiles
