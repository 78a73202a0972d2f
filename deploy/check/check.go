// Package check holds what deploy offers against what it is meant for: the
// Compose file against the Compose specification and cdrbus's own configuration,
// the manifests against Kubernetes' types, the alerts and the dashboard against
// Prometheus' parsers and cdrbus's table of metrics, the unit file against
// systemd's syntax. It has no code but its tests:
//
//	cd deploy/check && go test ./...
package check

// root is the repository's root, as the tests see it.
const root = "../../"
