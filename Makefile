SHELL := bash
.SHELLFLAGS := -o pipefail -ec
GOLANGCI_LINT_VERSION := v2.14.0
GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go')

.DEFAULT_GOAL := help
SEEDS ?= 5000
LAG_RATES ?= 5000 10000 20000
LAG_SECONDS ?= 60
SCALE ?= all
.PHONY: help deps test check lint fmt tidy-check bench bench-http bench-lag bench-scale sim queue-sim demo build

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

deps: ## install, or name, what the tests need (redis-server, postgresql, luacheck, chromium, gcc)
	@./.ci/deps

test: deps check ## everything: format, vet, luacheck, all tests with the race detector
	go test -race -timeout 15m ./...

check: ## the quick checks alone
	@unformatted=$$(gofmt -l $(GO_FILES)); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	go vet ./...

lint: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## golangci-lint, which also keeps the arrows between packages
	$< run ./...

fmt: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## format the Go code (gofumpt)
	$< fmt

tidy-check: ## fail when go.mod or go.sum is not tidy
	go mod tidy -diff

bench: deps ## the benchmarks, on real servers
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...

bench-http: deps ## bare Fiber, one call a request, Flashgate accepting, refusing, and accepting while drained, side by side
	FLASHGATE_BENCH_AOF=yes FLASHGATE_BENCH_ROUNDS=5 go test -run '^$$' -bench HTTPReserve -benchtime 1x -v -timeout 30m ./gateway

bench-lag: deps ## how far the ledger is behind an open load of reserves, LAG_RATES="5000 10000 20000" a second for LAG_SECONDS=60
	LAG_RATES="$(LAG_RATES)" LAG_SECONDS=$(LAG_SECONDS) go test -run '^$$' -bench 'LedgerLag' -benchtime 1x -v -timeout 60m ./internal/e2e

bench-scale: deps ## the cost of a reserve by holds, skus, sales and gateways; SCALE=skus,holds for some; plots in docs/plots
	BENCH_SCALE=$(SCALE) BENCH_OUT=$(CURDIR)/docs/plots go test -run '^$$' -bench Scale -benchtime 1x -timeout 20m ./internal/e2e

sim: ## recovery simulated with faults, SEEDS=5000 histories; what fails is shown as small as it gets
	FLASHGATE_SIM_SEEDS=$(SEEDS) go test -count=1 -timeout 60m -run 'TestSimulation$$' -v ./reconciler | grep -v '^ *\(=== \|--- PASS\)'

queue-sim: ## the waiting room with 100,000 people, whose figures are in docs/QUEUE.md; takes minutes
	FLASHGATE_QUEUE_SIM=1 go test -count=1 -timeout 60m -run 'TestSimulation' -v ./queue | grep -v '^ *\(=== \|--- PASS\)'

demo: ## a drop with thousands of shoppers, with nothing but Go
	go run ./cmd/flashgate demo

build: ## bin/flashgate
	go build -trimpath -o bin/flashgate ./cmd/flashgate

bin/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@
