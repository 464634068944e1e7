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
FUZZFLAGS ?=
BENCH     ?= .
COUNT     ?= 2
ARGS      ?=
DURATION  ?= 30m
SOCKMAP   ?= off

# Kubernetes' servers, kubectl, a node and a backend for tests, from testcluster/, a module of its own. kubectl cannot read a
# server's version unless the linker is told it.
KUBE_SOURCES := testcluster/go.mod testcluster/go.sum $(wildcard testcluster/*/*.go)
KUBE_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2 }' testcluster/go.mod)
KUBE_PACKAGE := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(KUBE_PACKAGE).gitVersion=$(KUBE_VERSION) \
	-X $(KUBE_PACKAGE).gitMajor=$(word 1,$(subst ., ,$(KUBE_VERSION:v%=%))) -X $(KUBE_PACKAGE).gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION)))

# What `make bench` and `make regress` compare this tree with: the last commit, or the one before it when nothing has
# changed since.
REF   ?= $(shell git diff --quiet HEAD 2>/dev/null && echo HEAD~1 || echo HEAD)
TURNS ?= 3
OLD   := $(or $(TMPDIR),/tmp)/sluice-before-$(shell pwd | cksum | cut -d ' ' -f 1)

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

# A compiler takes up to 1 GB, and the linker 2: no more of them than KUBE_JOBS. Whoever has no room is told before, not after.
KUBE_JOBS  ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
KUBE_SPACE := 7 # GB that a first build takes of Go's caches

bin/.kube: $(KUBE_SOURCES)
	@mkdir -p bin
	@echo "building Kubernetes $(KUBE_VERSION) for tests: the first time takes 10 to 20 minutes and 6 GB of Go's caches, later seconds"
	@free=$$(mkdir -p "$$($(GO) env GOCACHE)" && df -BG --output=avail "$$($(GO) env GOCACHE)" | tail -1 | tr -dc 0-9); \
	if [ ! -e bin/controlplane ] && [ "$$free" -lt $(KUBE_SPACE) ]; then \
		echo "Go's build cache ($$($(GO) env GOCACHE)) has $$free GB of room, this needs $(KUBE_SPACE): make room, or set GOCACHE, or test without a cluster (SLUICE_KUBE=off)" >&2; exit 1; fi
	CGO_ENABLED=0 $(GO) build -C testcluster -p $(KUBE_JOBS) -trimpath -ldflags '$(KUBE_LDFLAGS)' -o ../bin/ ./controlplane ./kubectl ./localkubelet ./echo
	@touch $@

# `go test -p 1` runs one package's tests at a time, and one compiler, too. This compiles what they are made of side by side;
# where that fails, the tests say why.
compile = @$(if $(1),CGO_ENABLED=1) $(GO) list $(1) -deps -test -f '{{if not (or .ForTest .Standard)}}{{.ImportPath}}{{end}}' $(PACKAGES) | \
	sed '/\.test$$/d' | xargs env $(if $(1),CGO_ENABLED=1) $(GO) build $(1) -o /dev/null 2>/dev/null || true

.PHONY: test
test: bin/h2spec bin/interop-client bin/interop-server ## all tests, those in a cluster too, with the fuzz targets' seeds (TESTFLAGS=-v, PACKAGES=./route, SLUICE_KUBE=off)
	$(compile)
	$(GO) test -p 1 -timeout 18m $(TESTFLAGS) $(PACKAGES)
ifeq ($(PACKAGES),./...)
ifeq ($(SLUICE_KUBE),off)
	@echo 'SLUICE_KUBE=off: no tests in a cluster'
else
	@$(MAKE) --no-print-directory test-cluster
endif
endif

test: bin/helm bin/kustomize bin/oauth2-proxy # tests of deploy/ and of authentication run them; built here, since a first build takes minutes

# They wait more than they work, so that more of them run than there are cores. Where no network namespace can be made they
# skip and say so, unless SLUICE_KUBE=required.
.PHONY: test-cluster
test-cluster: kube-bin bin/helm ## tests against a real control plane, which is built first (TESTFLAGS='-v -run FollowsChanges')
	$(GO) test -tags cluster -count 1 -timeout 15m -parallel 8 $(TESTFLAGS) ./clustertest

.PHONY: test-long
test-long: ## several GB through tunnels in each way, copied, spliced and joined in the kernel (GB=5)
	SLUICE_TUNNEL_GB=$(or $(GB),5) $(GO) test -count 1 -timeout 30m -v -run 'TestTunnelLong$$' ./fastpath

.PHONY: test-short
test-short: ## the tests that need no long load
	$(GO) test -short $(TESTFLAGS) $(PACKAGES)

.PHONY: race
race: bin/h2spec bin/interop-client bin/interop-server ## all tests under the race detector (needs gcc)
	$(call compile,-race)
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 18m $(TESTFLAGS) $(PACKAGES)

# `go test -fuzz` takes one target of one package a run.
.PHONY: fuzz
fuzz: ## every fuzz target, one after another (FUZZTIME=30s, FUZZ=FuzzHello for one, FUZZFLAGS=-race)
	@{ grep -rEo --include='*_test.go' --exclude-dir=tools --exclude-dir=testdata '^func $(FUZZ)[A-Za-z0-9_]*' . || \
		{ echo 'no fuzz target begins with $(FUZZ)' >&2; exit 1; }; } | sort | \
	while IFS=: read -r file name; do \
		dir=$$(dirname "$$file"); name=$${name#func }; \
		echo "== $$name in $$dir, $(FUZZTIME)"; \
		$(GO) test $(FUZZFLAGS) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$dir" </dev/null; \
	done

# Old and new take turns, because the machine drifts more than code does. A package that is new has no old figures.
.PHONY: bench
bench: bin/benchstat $(OLD) ## micro benchmarks beside those of the last commit (BENCH=Route, PACKAGES=./route, REF=v1)
	@mkdir -p bench/results; rm -f bench/results/tmp-micro-*.txt
	@for turn in $$(seq $(TURNS)); do \
		echo "== turn $$turn of $(TURNS), before ($(REF))"; \
		(cd $(OLD) && $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m $(PACKAGES)) | tee -a bench/results/tmp-micro-before.txt || true; \
		echo "== turn $$turn of $(TURNS), now"; \
		$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m $(PACKAGES) | tee -a bench/results/tmp-micro-now.txt; \
	done
	@git worktree remove --force $(OLD)
	bin/benchstat bench/results/tmp-micro-before.txt bench/results/tmp-micro-now.txt

.PHONY: scale
scale: kube-bin ## 10,000 Ingresses with 100,000 endpoints on a real API server: time to ready, memory, latency (SCALE=1000)
	SLUICE_KUBE=required SLUICE_SCALE=$(or $(SCALE),10000) $(GO) test -tags cluster -count 1 -v -timeout 30m -run 'TestScale$$' ./clustertest

.PHONY: regress
regress: build $(OLD) ## CPU per request beside the last commit's, in pairs; fails on a regression (REF=v1, ARGS=--rounds=5)
	CGO_ENABLED=0 $(GO) build -C $(OLD) -trimpath -o $(CURDIR)/bin/sluice-old .
	@git worktree remove --force $(OLD)
	$(GO) run ./bench regress --old=bin/sluice-old --new=bin/sluice $(ARGS)

# The tree of REF, checked out anew each time, outside of this one: tools that walk it should not find two.
.PHONY: $(OLD)
$(OLD):
	@git worktree prune; if [ -e $(OLD) ]; then git worktree remove --force $(OLD); fi
	git worktree add --quiet --force --detach $(OLD) $(REF)

ARCHITECTURES ?= amd64 arm64
IMAGE         ?= ghcr.io/sluiceproxy/sluice

# No registry is needed: the image is the program and nothing else.
.PHONY: image
image: ## build the container image for ARCHITECTURES, by buildah (IMAGE=name)
	@for arch in $(ARCHITECTURES); do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/linux-$$arch/sluice . && \
		buildah $(BUILDAHFLAGS) build --platform linux/$$arch --build-arg TARGETARCH=$$arch --timestamp 0 --tag $(IMAGE):$(VERSION)-$$arch . || exit 1; \
	done

.PHONY: chart
chart: bin/helm ## lint the Helm chart, and package it into bin
	bin/helm lint --strict deploy/chart
	bin/helm package --destination bin --app-version $(VERSION) deploy/chart

.PHONY: compare
compare: build ## Sluice beside its rivals on this machine (ARGS=--quick: a smoke test; --all; --readme=README.md)
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
	$(GO) vet -tags cluster ./clustertest
	$(GO) vet -C testcluster ./echo # the others' dependencies take minutes; gofmt and the build look at all
	bin/staticcheck $(PACKAGES)
	bin/staticcheck -tags cluster ./clustertest
	@if ! $(GO) run . annotations | diff -u docs/annotations.md -; then echo 'docs/annotations.md is not what the table says; make docs writes it'; exit 1; fi

.PHONY: latency
latency: ## what established connections notice of a flood of handshakes and of compiles, on a quiet machine, as root: five rounds (SPAN=20s each)
	SLUICE_LATENCY=$(or $(SPAN),20s) $(GO) test -count 1 -run '^TestLatency(Handshakes|Compile)$$' -v .

# A mixed load with changes all the time; what was seen is in bench/results/tmp-soak.csv and .svg.
.PHONY: soak
soak: ## mixed load, changing manifests, flapping backends: no error, flat memory (DURATION=30m, SOCKMAP=on)
	SLUICE_SOAK=$(DURATION) SLUICE_SOAK_SOCKMAP=$(SOCKMAP) SLUICE_SOAK_OUT=$(CURDIR)/bench/results $(GO) test -count 1 -timeout 0 -run '^TestSoak$$' -v .

# The public database is asked first. Where it cannot be reached, the reports as a Go module stand in, as old as their pin.
VULNDB := v0.0.0-20261105234957-e22db6528018
.PHONY: vuln
vuln: bin/govulncheck ## known holes in what Sluice is built from
	@if bin/govulncheck -db https://vuln.go.dev ./... >bin/vuln.txt 2>&1 || [ $$? = 3 ]; then cat bin/vuln.txt; ! grep -q '^Vulnerability #' bin/vuln.txt; else \
		echo 'https://vuln.go.dev cannot be reached; reports of golang.org/x/vulndb $(VULNDB) are used: newer ones are not known here'; \
		dir=$$($(GO) mod download -json golang.org/x/vulndb@$(VULNDB) | sed -n 's/.*"Dir": "\(.*\)",/\1/p'); \
		$(GO) run -C tools ./vulndb "$$dir" $(CURDIR)/bin/vulndb; \
		bin/govulncheck -db file://$(CURDIR)/bin/vulndb ./...; \
	fi

.PHONY: check
check: lint test race ## lint, test and race: what a change has to pass

.PHONY: clean
clean: ## remove what the targets above left here
	@if [ -e $(OLD) ]; then git worktree remove --force $(OLD); fi
	rm -rf bin bench/results/tmp*

# Pinned in tools/go.mod, a module of its own: its graph is not ours.
bin/staticcheck: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ honnef.co/go/tools/cmd/staticcheck


bin/helm: tools/go.mod tools/go.sum
	$(GO) build -C tools -ldflags '-s -w' -o ../$@ helm.sh/helm/v4/cmd/helm

bin/kustomize: tools/go.mod tools/go.sum
	$(GO) build -C tools -ldflags '-s -w' -o ../$@ sigs.k8s.io/kustomize/kustomize/v5

# A module of its own again: its graph would move the others' versions.
bin/oauth2-proxy: tools/oauth2-proxy/go.mod tools/oauth2-proxy/go.sum
	$(GO) build -C tools/oauth2-proxy -ldflags '-s -w' -o ../../$@ github.com/oauth2-proxy/oauth2-proxy/v7

bin/govulncheck: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ golang.org/x/vuln/cmd/govulncheck

bin/h2spec: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ github.com/summerwind/h2spec/cmd/h2spec

bin/interop-%: tools/go.mod tools/go.sum
	$(GO) build -C tools -ldflags '-s -w' -o ../$@ google.golang.org/grpc/interop/$*

bin/benchstat: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../$@ golang.org/x/perf/cmd/benchstat
