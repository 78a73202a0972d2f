package check

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"

	"cdrbus/internal/config"
	"cdrbus/internal/simulator"
)

const composeFile = root + "docker-compose.yml"

// loadCompose reads the Compose file with every check that Compose itself makes:
// the specification's schema, references, consistency.
func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	content, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  folder,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(folder, "docker-compose.yml"), Content: content}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("cdrbus", true) })
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeServices(t *testing.T) {
	project := loadCompose(t)
	if got, want := project.ServiceNames(), []string{"cdrbus", "kafka", "schema-registry", "simulator"}; !slices.Equal(got, want) {
		t.Fatalf("services are %v, want %v", got, want)
	}
	pinned := regexp.MustCompile(`:(\d+\.\d+\.\d+|local)$`)
	for name, service := range project.Services {
		if !pinned.MatchString(service.Image) {
			t.Errorf("%s: image %s is not pinned to a release", name, service.Image)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published to %q, want this machine only", name, port.Published, port.HostIP)
			}
		}
		if service.HealthCheck == nil && name != "simulator" {
			t.Errorf("%s has no health check", name)
		}
		if service.Privileged || service.NetworkMode != "" {
			t.Errorf("%s is privileged or leaves the network of the project", name)
		}
		for _, volume := range service.Volumes {
			if volume.Type == types.VolumeTypeBind {
				if _, err := os.Stat(volume.Source); err != nil {
					t.Errorf("%s mounts what is not there: %v", name, err)
				}
			}
		}
	}
	for name := range project.Services["cdrbus"].DependsOn {
		want := types.ServiceConditionHealthy
		if project.Services[name].HealthCheck == nil {
			want = types.ServiceConditionStarted
		}
		if got := project.Services["cdrbus"].DependsOn[name].Condition; got != want {
			t.Errorf("cdrbus depends on %s with %s, want %s", name, got, want)
		}
	}
	if len(project.Services["cdrbus"].DependsOn) != 3 {
		t.Errorf("cdrbus depends on %v", project.Services["cdrbus"].DependsOn)
	}
}

func TestComposePublishesNoSecret(t *testing.T) {
	suspicious := regexp.MustCompile(`(?i)password|secret|token|api_?key|sasl`)
	for name, service := range loadCompose(t).Services {
		for key, value := range service.Environment {
			// The simulator's tokens are made up and open nothing else.
			if value != nil && suspicious.MatchString(key) && !strings.HasPrefix(*value, "token-org-") {
				t.Errorf("%s: %s looks like a secret", name, key)
			}
		}
	}
}

func TestComposeBuild(t *testing.T) {
	for _, name := range []string{"cdrbus", "simulator"} {
		service := loadCompose(t).Services[name]
		if service.Build == nil {
			t.Fatalf("%s is not built", name)
		}
		if _, err := os.Stat(filepath.Join(service.Build.Context, service.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) {
			t.Errorf("%s may do more than it needs", name)
		}
	}
}

// The switches of the simulator are parsed by the simulator itself.
func TestComposeSimulatorSwitches(t *testing.T) {
	command := []string(loadCompose(t).Services["simulator"].Command)
	if len(command) == 0 || command[0] != "simulate" {
		t.Fatalf("command is %v", command)
	}
	options := simulator.DefaultOptions()
	flags := pflag.NewFlagSet("simulate", pflag.ContinueOnError)
	options.RegisterFlags(flags)
	if err := flags.Parse(command[1:]); err != nil {
		t.Fatal(err)
	}
	if _, err := simulator.New(options); err != nil {
		t.Fatal(err)
	}
	if options.Listen != "0.0.0.0:8087" {
		t.Errorf("the simulator listens on %s, where cdrbus does not ask", options.Listen)
	}
}

// The configuration is read by cdrbus itself, and every address in it leads to a
// service of the Compose file.
func TestComposeConfiguration(t *testing.T) {
	project := loadCompose(t)
	var environ []string
	for key, value := range project.Services["cdrbus"].Environment {
		environ = append(environ, key+"="+*value)
	}
	cfg, err := config.Load(root+"deploy/compose/cdrbus.yaml", environ)
	if err != nil {
		t.Fatal(err)
	}
	kafka := project.Services["kafka"].Environment
	advertised := *kafka["KAFKA_ADVERTISED_LISTENERS"]
	for _, broker := range cfg.Kafka.Brokers {
		if !strings.Contains(advertised, "//"+broker) {
			t.Errorf("broker %s is not advertised: %s", broker, advertised)
		}
	}
	for _, address := range cfg.SchemaRegistry.URLs {
		leadsTo(t, address, "schema-registry", *project.Services["schema-registry"].Environment["SCHEMA_REGISTRY_LISTENERS"])
	}
	for _, source := range cfg.Sources {
		leadsTo(t, source.URL, "simulator", "http://0.0.0.0:8087")
		if token, err := source.Token.Read(); err != nil || token != "token-org-1" {
			t.Errorf("source %s has token %q, %v: the simulator knows token-org-1", source.Name, token, err)
		}
	}
	_, port, err := net.SplitHostPort(cfg.Admin.Listen)
	if err != nil || !slices.ContainsFunc(project.Services["cdrbus"].Ports, func(p types.ServicePortConfig) bool { return p.Published == port }) {
		t.Errorf("admin.listen is %s, whose port is not published", cfg.Admin.Listen)
	}
	if cfg.Kafka.ReplicationFactor != 1 {
		t.Errorf("replication factor %d with one broker", cfg.Kafka.ReplicationFactor)
	}
}

// leadsTo demands that an address names the service and the port it listens on.
func leadsTo(t *testing.T, address, service, listener string) {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(listener)
	if err != nil {
		t.Fatal(err)
	}
	if to.Hostname() != service || to.Port() != at.Port() {
		t.Errorf("%s does not lead to %s, which listens on %s", address, service, listener)
	}
}

// A broker alone cannot hold the replicas that Kafka's internal topics ask for by
// default: without these, transactions never begin.
func TestComposeKafkaIsAloneAndKnowsIt(t *testing.T) {
	environment := loadCompose(t).Services["kafka"].Environment
	for _, key := range []string{
		"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
		"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR", "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR",
	} {
		if value := environment[key]; value == nil || *value != "1" {
			t.Errorf("%s is not 1", key)
		}
	}
	var listeners []string
	for listener := range strings.SplitSeq(*environment["KAFKA_LISTENERS"], ",") {
		listeners = append(listeners, listener[:strings.Index(listener, ":")])
	}
	for mapping := range strings.SplitSeq(*environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"], ",") {
		name := mapping[:strings.Index(mapping, ":")]
		if !slices.Contains(listeners, name) {
			t.Errorf("listener %s has a protocol and no address", name)
		}
		listeners = slices.DeleteFunc(listeners, func(l string) bool { return l == name })
	}
	if len(listeners) > 0 {
		t.Errorf("listeners %v have no protocol", listeners)
	}
}
