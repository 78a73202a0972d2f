// Checks of what deploy holds. A module of its own, so that the libraries that
// know Compose, Kubernetes and Prometheus stay out of cdrbus's go.mod.
module cdrbus/deploy/check

go 1.26.7

require cdrbus v0.0.0

require (
	github.com/compose-spec/compose-go/v2 v2.16.2 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/prometheus/prometheus v0.316.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	k8s.io/api v0.37.2 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)

replace cdrbus => ../..
