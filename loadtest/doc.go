// Package loadtest is the crowd in front of the shop and the auditor behind it. It knows the HTTP
// contract and the ledger's events, and nothing of how the server keeps its promises.
//
// crowd.go lets shoppers arrive in an open model, shopper.go says what each of them does, client.go
// carries their calls, recording.go remembers every answer. audit.go then holds what was answered
// against the ledger (judge.go folds its events and distrusts each of them) and against what the
// server says now (outside.go), and gives one verdict for each promise. summary.go counts,
// report.go writes it for people and machines.
package loadtest
