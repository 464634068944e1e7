# Sluice's tasks. `make` alone lists them.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -X main.version=$(VERSION)
PACKAGES  ?= ./...
TESTFLAGS ?=
FUZZTIME  ?= 30s
FUZZ      ?= Fuzz
BENCH     ?= .
COUNT     ?= 6
ARGS      ?=

# Kubernetes' servers, kubectl, a node and a backend for tests, from testcluster/, a module of its own. kubectl cannot read a
# server's version unless the linker is told it.
KUBE_SOURCES := testcluster/go.mod testcluster/go.sum $(wildcard testcluster/*/*.go)
KUBE_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2 }' testcluster/go.mod)
KUBE_PACKAGE := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(KUBE_PACKAGE).gitVersion=$(KUBE_VERSION) \
	-X $(KUBE_PACKAGE).gitMajor=$(word 1,$(subst ., ,$(KUBE_VERSION:v%=%))) -X $(KUBE_PACKAGE).gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION)))

BASELINE := bench/results/micro.txt
LATEST   := bench/results/tmp-micro.txt

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [VARIABLE=value]"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## build bin/sluice
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sluice .

.PHONY: run
run: build ## build, then serve the embedded demo on 8080 and 8443 (ARGS=... for flags)
	bin/sluice demo $(ARGS)

.PHONY: kube-bin
kube-bin: bin/.kube ## Kubernetes' control plane for tests, kubectl and a node of local processes, into bin/

bin/.kube: $(KUBE_SOURCES)
	@mkdir -p bin
	@echo "building Kubernetes $(KUBE_VERSION) for tests: the first time takes 10 to 20 minutes and 6 GB of Go's caches, later seconds"
	CGO_ENABLED=0 $(GO) build -C testcluster -trimpath -ldflags '$(KUBE_LDFLAGS)' -o ../bin/ ./controlplane ./kubectl ./localkubelet ./echo
	@touch $@

.PHONY: test
test: kube-bin ## all tests, with the fuzz targets' seeds and found inputs (TESTFLAGS=-v, PACKAGES=./route)
	SLUICE_KUBE=required $(GO) test -p 1 -timeout 18m $(TESTFLAGS) $(PACKAGES)

.PHONY: test-short
test-short: ## the tests that need no long load
	$(GO) test -short $(TESTFLAGS) $(PACKAGES)

.PHONY: race
race: ## all tests under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 18m $(TESTFLAGS) $(PACKAGES)

# `go test -fuzz` takes one target of one package a run.
.PHONY: fuzz
fuzz: ## every fuzz target, one after another (FUZZTIME=30s, FUZZ=FuzzHello for one)
	@{ grep -rEo --include='*_test.go' --exclude-dir=tools --exclude-dir=testdata '^func $(FUZZ)[A-Za-z0-9_]*' . || \
		{ echo 'no fuzz target begins with $(FUZZ)' >&2; exit 1; }; } | sort | \
	while IFS=: read -r file name; do \
		dir=$$(dirname "$$file"); name=$${name#func }; \
		echo "== $$name in $$dir, $(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$dir" </dev/null; \
	done

.PHONY: bench
bench: bin/benchstat ## micro benchmarks, against the saved ones if there are any (BENCH=Route, COUNT=6)
	@mkdir -p $(dir $(LATEST))
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m $(PACKAGES) | tee $(LATEST)
	@if [ -e $(BASELINE) ]; then bin/benchstat $(BASELINE) $(LATEST); else bin/benchstat $(LATEST); fi

.PHONY: scale
scale: kube-bin ## 10,000 Ingresses with 100,000 endpoints on a real API server: time to ready, memory, latency (SCALE=1000)
	SLUICE_KUBE=required SLUICE_SCALE=$(or $(SCALE),10000) $(GO) test -count 1 -v -timeout 30m -run 'TestScale$$' ./clustertest

.PHONY: bench-save
bench-save: ## make the last run of `make bench` the one that later runs are compared with
	cp $(LATEST) $(BASELINE)

.PHONY: compare
compare: build ## Sluice beside nginx and HAProxy on this machine (ARGS=--quick for a smoke test)
	$(GO) run ./bench compare $(ARGS)

.PHONY: golden
golden: ## rewrite the golden files of watcher/translate; read the diff
	$(GO) test ./watcher/translate -update

# By way of a second file: a command that fails must not leave an empty page.
.PHONY: docs
docs: ## write docs/annotations.md from the table in watcher/translate
	@mkdir -p bin
	$(GO) run . annotations > bin/annotations.md
	mv bin/annotations.md docs/annotations.md

.PHONY: generate
generate: docs ## everything that is generated: go generate, docs
	$(GO) generate $(PACKAGES)

.PHONY: lint
lint: bin/staticcheck ## gofmt, go vet, staticcheck, generated pages up to date
	@echo gofmt -l .; unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "$$unformatted"; echo 'these files are not formatted; gofmt -w does it'; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) vet -C testcluster ./echo # the others' dependencies take minutes; gofmt and the build look at all
	bin/staticcheck $(PACKAGES)
	@if ! $(GO) run . annotations | diff -u docs/annotations.md -; then echo 'docs/annotations.md is not what the table says; make docs writes it'; exit 1; fi

.PHONY: check
check: lint test race ## lint, test and race: what a change has to pass

.PHONY: clean
clean: ## remove what the targets above left here
	rm -rf bin bench/results/tmp*

# Pinned in tools/go.mod, a module of its own: its graph is not ours.
bin/staticcheck: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ honnef.co/go/tools/cmd/staticcheck

bin/benchstat: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ golang.org/x/perf/cmd/benchstat
