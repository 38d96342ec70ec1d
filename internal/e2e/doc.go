// Package e2e runs the built program as its users do: as processes, on real servers, with kill -9.
// world_test.go starts everything, faults_test.go kills it under load and audits what the shoppers
// were told, cluster_test.go spreads sales over a Redis Cluster, outage_*_test.go do what servers do short of
// dying, to two gateways, docs_test.go runs every command that the documentation shows.
package e2e
