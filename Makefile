# Two commands do everything on a fresh Linux machine with a Rust toolchain: `make run` and `make test`.

CARGO   ?= cargo
PROFILE ?= release
BIN      = target/$(PROFILE)/everflame
SUDO     = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.DEFAULT_GOAL := help
.PHONY: help run build test check types deny bench truth record crash setup setup-test setup-truth clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building needs (clang, libelf, …)
	@deploy/install-packages build

setup-test: ## Install what the tests need (gdb, Chromium, Go, busybox, …)
	@deploy/install-packages build test kernels

setup-truth: ## Install the programs and compilers of the native matrix (PostgreSQL, nginx, ffmpeg, musl, …)
	@deploy/install-packages build test truth

build: setup ## Build the program
	$(CARGO) build --profile $(PROFILE) --locked

run: build ## Build and profile this machine; prints the page's address
	@echo "starting $(BIN) all-in-one (Ctrl-C stops it)"
	@$(SUDO) $(BIN) all-in-one $(ARGS)

check: ## Format, lints, house rules, types of the page, licences
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --quiet --test tidy
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory deny

types: node_modules/.package-lock.json ## Check the types of the page's modules
	npx --no-install tsc -p tsconfig.json

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

deny: ## Licences and sources of all dependencies
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny"; $(CARGO) install --quiet --locked cargo-deny; }
	cargo deny --locked --log-level error check licenses bans sources

test: setup-test check ## Every test; what needs root, Chromium or a kernel feature says so when it cannot run
	$(CARGO) test --locked
	@$(MAKE) --no-print-directory test-page
	@$(MAKE) --no-print-directory test-kernels

.PHONY: test-page test-kernels
test-page: node_modules/.package-lock.json ## Browser scenes of the page
	node --test tests/web/

test-kernels: ## The kernel side in QEMU guests: 5.10, 6.1, 6.12, the newest (KERNELS="5.10" for one)
	@deploy/install-packages build kernels
	@CARGO="$(CARGO)" tests/kernels/run $(KERNELS)

# 146 hours of a synthetic host of 32 CPUs are more than 100 million samples.
STORE_HOURS ?= 146

bench: setup ## Figures beside their budgets (root; STORE_HOURS=3 for a short one)
	$(CARGO) bench --locked --profile profiling --bench budgets
	$(CARGO) bench --locked --profile profiling --bench tables
	$(CARGO) bench --locked --profile profiling --bench collector
	EVERFLAME_STORE_HOURS=$(STORE_HOURS) EVERFLAME_STORE_SET=A $(CARGO) bench --locked --profile profiling --bench store
	EVERFLAME_STORE_HOURS=24 EVERFLAME_STORE_SET=B $(CARGO) bench --locked --profile profiling --bench store
	EVERFLAME_BENCH_MINUTES=10 $(CARGO) bench --locked --profile profiling --bench output

# CPU time sampled of each program of the matrix, and of each one of known shares.
SECONDS_EACH  ?= 5
STORM_SECONDS ?= 60
SHARE_SECONDS ?= 30

truth: setup-truth node_modules/.package-lock.json ## Every program of the native matrix, and known shares, against the truth (root; SECONDS_EACH, ROWS)
	EVERFLAME_TRUTH=all EVERFLAME_TRUTH_ROWS='$(ROWS)' EVERFLAME_TRUTH_SECONDS=$(SECONDS_EACH) $(CARGO) test --locked --test truth -- --nocapture
	EVERFLAME_TRUTH_SECONDS=$(SHARE_SECONDS) $(CARGO) test --locked --test scenes -- --nocapture known_programs
	EVERFLAME_STORM_SECONDS=$(STORM_SECONDS) $(CARGO) test --locked --test agent -- --nocapture storm

record: setup-test ## One thread of a process as a replay case: PID=… OUT=… (root; see tests/replay/README.md)
	EVERFLAME_RECORD_PID=$(PID) EVERFLAME_RECORD_OUT=$(OUT) $(CARGO) test --locked --test replay -- --ignored --nocapture record_process

crash: setup ## Kill the store 100 times while it writes
	EVERFLAME_CRASH_ROUNDS=100 $(CARGO) test --locked --test store -- crash --nocapture

clean: ## Remove what was built
	$(CARGO) clean
