# What a developer types. `go test ./...` needs none of it.

BUF         = go run github.com/bufbuild/buf/cmd/buf@v1.75.0
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build test race lint generate bench torture bite

build: ## the three programs, into bin/
	go build -trimpath -o bin/ ./cmd/relayd ./cmd/relayctl ./cmd/connector

test: ## everything, as the README says
	go test ./...

race: ## the concurrent packages under the race detector
	go test -race ./relay/... ./consensus/... ./tls/...

lint: ## format, vet, staticcheck, the wire contract
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(STATICCHECK) ./...
	$(BUF) lint

generate: ## the Go code of the wire contract
	$(BUF) generate

bench: ## figures of the parts and of the mesh
	go test -run '^$$' -bench . -benchtime 2s ./routing ./relay/spool/... ./test/bench

torture: ## every suite that breaks the mesh, long forms, then one table: docs/reliability.md
	go run ./test/torture

bite: ## each promise taken out of the code, one by one: the suites have to notice
	BITE=1 go test -count=1 -v -timeout 120m -run '^TestBite$$' ./test/bite
