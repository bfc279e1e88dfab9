# Everything that people and CI do with this repository. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint deny generated picture bench parallelism sim conformance fuzz faults kill soak screenshots idle static sbom clean

CARGO ?= cargo
# where cargo builds, also when the environment or cargo's configuration says another place
TARGET = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')

help: ## what there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## a private containerd, three private registries (one slow) and the agent that stocks one from the others; ONCE=1 ends by itself
	@hack/install-parts
	@$(CARGO) build --quiet --bin prepull --example demo
	@$(CARGO) run --quiet --example demo -- $(if $(ONCE),--once)

test: ## every test; what is missing is installed, and what cannot be is named
	@hack/install-parts --optional || echo "make test: going on without these; the tests name what they leave out" >&2
	@[ -z "$${PREPULL_TEST_CLUSTER:-}" ] || hack/install-cluster-parts || \
	  echo "make test: going on without these too; the tests name what they leave out" >&2
	@$(CARGO) test --workspace --no-fail-fast

lint: ## formatting and clippy, warnings as errors
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings

deny: ## licences, sources and bans of all dependencies, and known vulnerabilities if their database can be reached
	@command -v cargo-deny >/dev/null || hack/install-cargo-deny "$(TARGET)/cargo-deny" >/dev/null
	@PATH="$$PATH:$(TARGET)/cargo-deny/bin" hack/deny

generated: ## writes docs/metrics.md and the metrics' snapshots from the code, the dashboard from its script, and the chart's copies
	@INSTA_UPDATE=always $(CARGO) test --quiet --test metrics_page -- reference
	@INSTA_UPDATE=always $(CARGO) test --quiet --lib -- metrics::tests
	@hack/monitoring-files

picture: ## docs/images/dashboard.png from twenty minutes of six real agents and a real Prometheus (takes that long; needs python3-venv)
	@hack/install-parts --optional
	@$(CARGO) build --quiet --bin prepull --example scene
	@[ -x "$(TARGET)/picture/bin/python" ] || python3 -m venv "$(TARGET)/picture"
	@"$(TARGET)/picture/bin/pip" install --quiet matplotlib
	@"$(TARGET)/debug/examples/scene" "$(TARGET)/picture/bin/python" hack/dashboard-picture {} docs/images/dashboard.png

bench: ## whole-job ratios on a real containerd, an idle agent, and the pure parts
	@hack/install-parts
	@$(CARGO) build --quiet --release --bin prepull
	@PREPULL_BIN="$(TARGET)/release/prepull" $(CARGO) bench --quiet --profile dev --bench warming --bench idle
	@$(CARGO) bench --quiet --bench pure

# how often each number of pulls at once is tried, and what else benches/parallelism.rs reads
PARALLELISM_ROUNDS ?= 3

parallelism: ## time to warm at every number of pulls at once against `auto`, on each containerd and network; writes docs/benchmarks.md and plots (over an hour a round)
	@hack/install-parts
	@[ -n "$${PREPULL_BIN:-}" ] || $(CARGO) build --quiet --release --bin prepull
	@rm -f "$(TARGET)/parallelism.jsonl"
	@PREPULL_BIN="$${PREPULL_BIN:-$(TARGET)/release/prepull}" PREPULL_BENCH_OUTPUT="$(TARGET)/parallelism.jsonl" \
	  PREPULL_BENCH_ROUNDS=$(PARALLELISM_ROUNDS) $(CARGO) bench --quiet --bench parallelism
	@hack/parallelism-report "$(TARGET)/parallelism.jsonl"

sim: ## up to 20,000 simulated nodes with the agent's own planner, budget and spread; writes docs/scaling.md and its pictures
	@PREPULL_SIM_WRITE=1 $(CARGO) bench --quiet --bench sim

# how long the agent in a cluster is watched; the server ends a watch after about 290 s, and the agent begins it again
IDLE_SECONDS ?= 600

idle: ## memory and CPU of an idle agent with 200 images; with KUBEBUILDER_ASSETS also its requests over ten minutes
	@[ -n "$${PREPULL_BIN:-}" ] || $(CARGO) build --quiet --release --bin prepull
	@export PREPULL_BIN="$${PREPULL_BIN:-$(TARGET)/release/prepull}" PREPULL_TEST_IDLE_SECONDS=$(IDLE_SECONDS); \
	  $(CARGO) bench --quiet --profile dev --bench idle; \
	  [ -z "$${KUBEBUILDER_ASSETS:-}" ] || $(CARGO) test --quiet --test cluster_agent -- --nocapture an_idle_agent_holds_one_watch

conformance: ## compares names, policies, credentials and plugins with the kubelet's own packages (needs Go)
	@PREPULL_TEST_REQUIRE_ALL=1 $(CARGO) test --test conformance

# seconds for each target
FUZZ_SECONDS ?= 60

fuzz: ## feeds every parser of foreign input with what reaches new code; FUZZ_SECONDS each (60); what it finds stays below target/
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --quiet --locked cargo-fuzz
	@for target in fuzz/fuzz_targets/*.rs; do \
	  name=$$(basename "$$target" .rs); found="$(TARGET)/fuzz-corpus/$$name"; log="$(TARGET)/fuzz-corpus/$$name.log"; \
	  mkdir -p "$$found"; \
	  if $(CARGO) fuzz run --sanitizer none "$$name" "$$found" "$(CURDIR)/fuzz/corpus/$$name" \
	    -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -print_final_stats=0 >"$$log" 2>&1; \
	  then echo "$$name: $$(tail -n 1 "$$log")"; \
	  else tail -n 40 "$$log" >&2; echo "make fuzz: $$name failed; an input that it does not survive is in fuzz/artifacts/$$name" >&2; exit 1; fi; \
	done

screenshots: ## the pictures in docs/images, of a real agent's status page in Chromium
	@hack/install-parts --optional
	@$(CARGO) build --quiet --bin prepull --example screenshots
	@$(CARGO) run --quiet --example screenshots

# how often each fault is brought about on each runtime, the agent is killed in all, and minutes the churn lasts
FAULT_ROUNDS ?= 3
KILLS ?= 300
SOAK_SECONDS ?= 600
RELIABILITY = $(CARGO) test --test reliability --

faults: ## every fault on every runtime, FAULT_ROUNDS times; writes the table of docs/reliability.md
	@hack/install-parts --optional
	@PREPULL_FAULT_ROUNDS=$(FAULT_ROUNDS) PREPULL_FAULT_TABLE="$(CURDIR)/docs/reliability.md" $(RELIABILITY) faults::

kill: ## SIGKILL of the agent at KILLS random moments, a third of them on each runtime
	@hack/install-parts --optional
	@PREPULL_TEST_KILLS=$$(( $(KILLS) / 3 )) $(RELIABILITY) --nocapture kill::

soak: ## ten simulated hours, and SOAK_SECONDS of churn on each runtime, all beside each other: they mostly wait
	@hack/install-parts --optional
	@PREPULL_TEST_SOAK_SECONDS=$(SOAK_SECONDS) $(RELIABILITY) --nocapture --test-threads 4 soak::

static: ## the static release binary, for the image and for users
	@CARGO_TARGET_DIR="$(TARGET)" hack/build-static "$$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" "$(TARGET)/release/prepull"

sbom: ## what the binary is linked from, as CycloneDX: target/sbom/prepull-amd64.cdx.json and -arm64
	@command -v cargo-cyclonedx >/dev/null || $(CARGO) install --quiet --locked cargo-cyclonedx
	@for machine in amd64 arm64; do hack/sbom "$(TARGET)/sbom/prepull-$$machine.cdx.json" $$machine; done

clean: ## what was built
	@$(CARGO) clean
