.DEFAULT_GOAL := help
.PHONY: help demo run build release test test-postgres schema-objects bench bench-smoke screenshots faults fuzz lint lint-tools docker-check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Deliver 2,000 messages through a throwaway PostgreSQL and a simulated API
	@.ci/ensure-prerequisites compiler postgres
	cargo build --locked
	"$${CARGO_TARGET_DIR:-target}/debug/worker" dev -- sh examples/demo.sh 2000

run: ## Run the worker; its settings are in the environment
	@.ci/ensure-prerequisites compiler
	cargo run --release --locked -- run

build: ## Build target/release/worker
	@.ci/ensure-prerequisites compiler
	cargo build --release --locked

release: ## Build dist/: the archive with the static Linux binary, the SBOM and the checksums; the image if Docker runs
	@.ci/ensure-prerequisites compiler musl python
	@.ci/release

test: ## Run all tests; those of the database start their own PostgreSQL and PgBouncer
	@.ci/ensure-prerequisites compiler postgres pgbouncer faketime python node browser
	cargo test --locked --workspace

VERSION ?= 18

test-postgres: ## Run the tests of the binary and the schema on PostgreSQL VERSION (14 to 18), downloaded from the npm registry
	@.ci/ensure-prerequisites compiler node pgbouncer psql
	bindir=$$(.ci/postgres "$(VERSION)") && WORKER_PG_BINDIR="$$bindir" \
	    cargo test --locked --test it -- --skip moved::restored --skip finds_the_servers_psql # moved::restored needs pg_dump, the other test the server's psql, which this package lacks

schema-objects: ## Write migrations/objects.json after a change of migrations/, with PostgreSQL 14 or 15
	@.ci/ensure-prerequisites compiler postgres
	WRITE_OBJECTS=1 cargo test --locked --lib the_list_of_objects_is_that_of_a_database_just_migrated

bench: ## Measure everything in docs/performance.md (two hours, 20 GB); BENCH="drain --runs 5" chooses
	@.ci/ensure-prerequisites compiler postgres
	cargo build --release --locked -p signaling-worker -p signaling-bench
	"$${CARGO_TARGET_DIR:-target}/release/bench" $(BENCH)

bench-smoke: ## Compare statements, transactions, WAL bytes and instructions of a message with crates/bench/src/scenario.rs
	@.ci/ensure-prerequisites compiler postgres valgrind
	cargo build --release --locked -p signaling-worker -p signaling-bench
	"$${CARGO_TARGET_DIR:-target}/release/bench" counts --runs 1 --strict

screenshots: ## Take the pictures in docs/screenshots again
	@.ci/ensure-prerequisites compiler postgres browser
	cargo test --locked --test dashboard -- --ignored screenshots_of_the_pages

faults: ## Run a fleet under every fault for FAULTS_MINUTES (5); FAULTS_SEED repeats a run, FAULTS_ONLY=A,B chooses
	@.ci/ensure-prerequisites compiler postgres faketime
	FAULTS_MINUTES="$${FAULTS_MINUTES:-5}" cargo test --locked --test faults -- --nocapture

FUZZ_SECONDS ?= 60

fuzz: ## Fuzz each target for FUZZ_SECONDS (60); needs a nightly toolchain and cargo-fuzz
	@.ci/fuzz "$(FUZZ_SECONDS)"

lint: ## Check the format, the lints, the docs and the dependencies
	@.ci/ensure-prerequisites compiler
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --no-default-features --lib --bins --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@.ci/check-dependencies

lint-tools: ## Install the tools that check the dependencies
	cargo install --locked cargo-deny cargo-machete

docker-check: ## Build the image and try the services of docker/compose.yaml; needs Docker
	@docker/check
