// Package loadtest is the crowd in front of the shop and the auditor behind it. It knows the HTTP
// contract and the ledger's events, and nothing of how the server keeps its promises.
//
// scenario.go reads what a file says of a load, and schedule.go when who comes. crowd.go lets shoppers
// arrive in an open model, shopper.go and others.go say what each of them does, client.go makes their calls over
// wire.go (connections), exchange.go (HTTP) and body.go (JSON), mapping.go those to another system, recording.go
// remembers every answer. audit.go then holds what
// was answered against the ledger (judge.go folds its events and distrusts each of them) and against what
// the server says now (outside.go; outsideonly.go where there is no ledger), and gives one verdict for each
// promise; fairness.go one more. summary.go, series.go and recovery.go count, report.go writes it as text, page.go as a
// page with charts, compare.go two runs side by side.
package loadtest
