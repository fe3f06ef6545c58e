# The commands of this repository. `make run` builds and starts Spanreel; `make test` is all checks and tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: run build test lint bench web

# Arguments of `make run`, e.g. make run ARGS='--config my.yaml'.
ARGS ?=
# Arguments of `make bench`, e.g. make bench BENCH='--seconds 20'.
BENCH ?=

# RocksDB is compiled once per machine; the crate then links that archive.
rocksdb = dir=$$(.ci/rocksdb); export ROCKSDB_LIB_DIR=$$dir ROCKSDB_STATIC=1 ROCKSDB_INCLUDE_DIR=$$dir/include

run:
	.ci/tools build
	$(rocksdb)
	exec cargo run --release --locked -- $(ARGS)

build:
	.ci/tools build
	$(rocksdb)
	cargo build --release --locked

lint:
	.ci/tools build
	$(rocksdb)
	cargo fmt --all --check
	cargo clippy --release --locked --all-targets -- -D warnings

# One profile for product and tests, and every real part before the first test that wants it.
test:
	.ci/step "tools" .ci/tools
	.ci/step "format" cargo fmt --all --check
	.ci/step "RocksDB" .ci/rocksdb
	$(rocksdb)
	.ci/step "otelcol" .ci/otelcol
	.ci/step "telemetrygen" .ci/telemetrygen
	.ci/step "Java agent" .ci/java-agent
	.ci/step "Python agent" .ci/python-agent
	.ci/step "Node.js agent" .ci/node-agent
	.ci/step "tracers" .ci/tracers
	.ci/step "Kubernetes" .ci/kube
	.ci/step "web UI" .ci/web check
	.ci/step "clippy" cargo clippy --release --locked --all-targets -- -D warnings
	.ci/step "build" cargo test --release --locked --no-run
	.ci/step "tests" cargo test --release --locked
	.ci/step "browser" .ci/web browser
	.ci/step "fuzzing" .ci/fuzz 28

# Builds web/dist from the sources in web/; commit both.
web:
	.ci/web build

bench:
	.ci/tools
	$(rocksdb)
	.ci/otelcol
	.ci/kube
	cargo bench --locked --bench parts
	cargo bench --locked --bench load -- $(BENCH)
	cargo bench --locked --bench load -- --store 1000,10000,max --seconds 90
	cargo bench --locked --bench query
	cargo bench --locked --bench admission
