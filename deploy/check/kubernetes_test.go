package check

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"cdrbus/internal/config"
)

const manifests = root + "deploy/kubernetes/"

// manifest reads one file into a type of Kubernetes as its API server does:
// strictly, upper and lower case told apart.
func manifest[T any](t *testing.T, name string) *T {
	t.Helper()
	content, err := os.ReadFile(manifests + name)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(content)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	into := new(T)
	problems, err := json.UnmarshalStrict(asJSON, into)
	if err := errors.Join(append(problems, err)...); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return into
}

func TestManifestsAreComplete(t *testing.T) {
	var list struct {
		APIVersion, Kind, Namespace string
		Resources                   []string
	}
	content, err := os.ReadFile(manifests + "kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, &list); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(manifests + "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "kustomization.yaml" {
			continue
		}
		if !slices.Contains(list.Resources, name) {
			t.Errorf("%s is not in kustomization.yaml", name)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("\n---")) {
			t.Errorf("%s holds several documents; the checks read one", name)
		}
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(content, &head); err != nil {
			t.Fatal(err)
		}
		if head.Metadata.Name != "cdrbus" || head.Kind != "Namespace" && head.Metadata.Namespace != list.Namespace {
			t.Errorf("%s is %s/%s", name, head.Metadata.Namespace, head.Metadata.Name)
		}
	}
	if len(list.Resources) != len(files)-1 {
		t.Errorf("kustomization.yaml names %d resources, there are %d", len(list.Resources), len(files)-1)
	}
}

func TestManifestTypes(t *testing.T) {
	for _, m := range []struct{ got, want string }{
		{kind(manifest[corev1.Namespace](t, "namespace.yaml").TypeMeta.String()), "v1/Namespace"},
		{kind(manifest[corev1.ServiceAccount](t, "serviceaccount.yaml").TypeMeta.String()), "v1/ServiceAccount"},
		{kind(manifest[corev1.ConfigMap](t, "configmap.yaml").TypeMeta.String()), "v1/ConfigMap"},
		{kind(manifest[corev1.Secret](t, "secret.yaml").TypeMeta.String()), "v1/Secret"},
		{kind(manifest[corev1.Service](t, "service.yaml").TypeMeta.String()), "v1/Service"},
		{kind(manifest[appsv1.Deployment](t, "deployment.yaml").TypeMeta.String()), "apps/v1/Deployment"},
		{kind(manifest[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml").TypeMeta.String()), "policy/v1/PodDisruptionBudget"},
	} {
		if m.got != m.want {
			t.Errorf("a manifest is %s, want %s", m.got, m.want)
		}
	}
}

// kind turns the text of a TypeMeta into apiVersion/kind.
func kind(text string) string {
	fields := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("&{}:,", r) })
	return fields[4] + "/" + fields[2]
}

func TestEverySelectorFindsThePods(t *testing.T) {
	deployment := deployment(t)
	pod := deployment.Spec.Template
	service := manifest[corev1.Service](t, "service.yaml")
	selectors := []map[string]string{
		deployment.Spec.Selector.MatchLabels, service.Spec.Selector,
		manifest[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml").Spec.Selector.MatchLabels,
	}
	for _, spread := range pod.Spec.TopologySpreadConstraints {
		selectors = append(selectors, spread.LabelSelector.MatchLabels)
	}
	for i, selector := range selectors {
		if !maps.Equal(selector, pod.Labels) {
			t.Errorf("selector %d is for %v, the pods are %v", i, selector, pod.Labels)
		}
	}
	if !service.Spec.PublishNotReadyAddresses {
		t.Error("the service hides a pod that is not ready, and its metrics with it")
	}
}

// A roll-out is a hand-over: nobody leaves before all of the new fleet is at work,
// and each has the time that a shutdown may take.
func TestFleetRollsOut(t *testing.T) {
	spec := deployment(t).Spec
	cfg := kubernetesConfig(t)
	if *spec.Replicas < 2 || cfg.Ownership != config.Group {
		t.Errorf("%d replicas with ownership %s are no fleet", *spec.Replicas, cfg.Ownership)
	}
	if int(*spec.Replicas) > cfg.Kafka.Shards {
		t.Errorf("%d replicas for %d shards", *spec.Replicas, cfg.Kafka.Shards)
	}
	update := spec.Strategy.RollingUpdate
	if spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || update.MaxUnavailable.String() != "0" || update.MaxSurge.String() != "100%" {
		t.Errorf("the strategy is %s: %v", spec.Strategy.Type, update)
	}
	if wait := time.Duration(spec.MinReadySeconds) * time.Second; wait < time.Minute {
		t.Errorf("shards move again after %s, when the request budgets of their sources are still empty", wait)
	}
	if grace := *spec.Template.Spec.TerminationGracePeriodSeconds; grace < 15 {
		t.Errorf("%d s for a shutdown that may take 10", grace)
	}
	budget := manifest[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml").Spec
	if budget.MaxUnavailable.IntValue() >= int(*spec.Replicas) {
		t.Errorf("a drain may take %s of %d pods away at once", budget.MaxUnavailable, *spec.Replicas)
	}
}

// What the pods' environment sets is a key of the configuration, and names each
// pod apart.
func TestEnvironmentFitsTheConfiguration(t *testing.T) {
	pod := deployment(t).Spec.Template.Spec
	if links := pod.EnableServiceLinks; links == nil || *links {
		t.Error("service links would put variables that begin with CDRBUS_ into the environment")
	}
	var environ []string
	for _, v := range pod.Containers[0].Env {
		if v.ValueFrom == nil || v.ValueFrom.FieldRef == nil || v.ValueFrom.FieldRef.FieldPath != "metadata.name" {
			t.Fatalf("%s is not the pod's name", v.Name)
		}
		environ = append(environ, v.Name+"=cdrbus-5d9c7-x2x8k")
	}
	if cfg := kubernetesConfig(t, environ...); cfg.Kafka.Group.Member != "cdrbus-5d9c7-x2x8k" {
		t.Errorf("the pod calls itself %q", cfg.Kafka.Group.Member)
	}
}

// The pod security standard "restricted", and a little more.
func TestPodIsConfined(t *testing.T) {
	pod := deployment(t).Spec.Template.Spec
	s := pod.SecurityContext
	if !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *s.FSGroup != 65532 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod security context is %+v", s)
	}
	if *pod.AutomountServiceAccountToken || pod.HostNetwork || pod.HostPID {
		t.Error("the pod has more of its host or of Kubernetes than it needs")
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: security context is %+v", c.Name, s)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: requests or limits are missing", c.Name)
		}
		if _, tag, found := strings.Cut(c.Image, ":"); !found || tag == "latest" {
			t.Errorf("%s: image %s is not pinned", c.Name, c.Image)
		}
	}
}

func TestProbesMeetTheAdminServer(t *testing.T) {
	container := deployment(t).Spec.Template.Spec.Containers[0]
	cfg := kubernetesConfig(t)
	host, port, err := net.SplitHostPort(cfg.Admin.Listen)
	if err != nil || host != "0.0.0.0" {
		t.Errorf("admin.listen is %s: probes come from outside the pod", cfg.Admin.Listen)
	}
	ports := map[string]string{}
	for _, p := range container.Ports {
		ports[p.Name] = intText(p.ContainerPort)
	}
	for probe, want := range map[*corev1.Probe]string{container.LivenessProbe: "/healthz", container.ReadinessProbe: "/readyz?of=shards"} {
		if probe.HTTPGet.Path != want || ports[probe.HTTPGet.Port.StrVal] != port {
			t.Errorf("a probe asks %s at port %s, want %s at %s", probe.HTTPGet.Path, probe.HTTPGet.Port.StrVal, want, port)
		}
	}
	service := manifest[corev1.Service](t, "service.yaml").Spec.Ports[0]
	if ports[service.TargetPort.StrVal] != port || intText(service.Port) != port {
		t.Errorf("the service leads to port %s, the server listens on %s", service.TargetPort.StrVal, port)
	}
}

// Every file that the configuration names is mounted, from a key that exists, and
// nothing else is in the secret.
func TestConfiguredFilesAreMounted(t *testing.T) {
	cfg := kubernetesConfig(t)
	pod := deployment(t).Spec.Template.Spec
	keys := manifest[corev1.Secret](t, "secret.yaml").StringData
	mounts := map[string]string{} // volume -> path
	for _, m := range pod.Containers[0].VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	files := []string{cfg.Kafka.TLS.CAFile, cfg.Kafka.SASL.Password.Path()}
	for _, c := range cfg.Credentials {
		files = append(files, c.ClientID.Path(), c.ClientSecret.Path(), c.TokenKey.Path(), c.RefreshToken.Path())
		if !c.TokensInKafka() {
			t.Errorf("the tokens of credential %s lie in %s, where the other pods do not find them", c.Name, c.TokenStore)
		}
	}
	for _, file := range files {
		if path.Dir(file) != mounts["secrets"] || keys[path.Base(file)] == "" {
			t.Errorf("%s is not a key of the secret, mounted at %s", file, mounts["secrets"])
		}
	}
	if len(keys) != len(files) {
		t.Errorf("the secret has %d keys, the configuration names %d files", len(keys), len(files))
	}
	for key, value := range keys {
		if value != "REPLACE" {
			t.Errorf("key %s of the example secret holds more than a placeholder", key)
		}
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil && *v.Secret.DefaultMode&0o007 != 0 {
			t.Errorf("secrets are mounted with mode %o, which cdrbus refuses", *v.Secret.DefaultMode)
		}
		if v.PersistentVolumeClaim != nil {
			t.Errorf("volume %s binds the pod to a disk", v.Name)
		}
	}
}

func deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	return manifest[appsv1.Deployment](t, "deployment.yaml")
}

func kubernetesConfig(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	text := manifest[corev1.ConfigMap](t, "configmap.yaml").Data["cdrbus.yaml"]
	cfg, err := config.Parse("configmap.yaml", []byte(text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
