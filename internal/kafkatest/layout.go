package kafkatest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// layout is one broker's place: its directory, ports and properties.
type layout struct {
	id         int
	dir        string
	clusterID  string
	ports      ports
	client     string // what clients of the CLIENT listener are told
	properties map[string]string
}

type ports struct{ plain, controller, client int }

// layOut plans the brokers of a cluster, on ports of which three are for each.
func layOut(dir string, free []int, options Options) []layout {
	var id [16]byte
	rand.Read(id[:]) // never fails
	clusterID := clusterIDOf(id)
	var layouts []layout
	var voters []string
	for i := range options.Brokers {
		l := layout{id: i + 1, clusterID: clusterID, dir: filepath.Join(dir, fmt.Sprintf("broker-%d", i+1)),
			ports: ports{plain: free[3*i], controller: free[3*i+1], client: free[3*i+2]}}
		l.client = net.JoinHostPort("127.0.0.1", strconv.Itoa(l.ports.client))
		if options.Advertise != nil {
			l.client = options.Advertise(l.id, l.client)
		}
		layouts = append(layouts, l)
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", l.id, l.ports.controller))
	}
	for i := range layouts {
		layouts[i].properties = layouts[i].serverProperties(options, strings.Join(voters, ","))
	}
	return layouts
}

// serverProperties is a broker and controller in one, as small and quick as it
// goes, with everything durable that a single machine can make durable.
func (l layout) serverProperties(options Options, voters string) map[string]string {
	listeners := fmt.Sprintf("PLAIN://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", l.ports.plain, l.ports.controller)
	advertised := fmt.Sprintf("PLAIN://127.0.0.1:%d", l.ports.plain)
	protocols := "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT"
	if options.ClientProtocol != "" {
		listeners += fmt.Sprintf(",CLIENT://127.0.0.1:%d", l.ports.client)
		advertised += ",CLIENT://" + l.client
		protocols += ",CLIENT:" + options.ClientProtocol
	}
	replicas, minISR := "1", "1"
	if options.Brokers >= 3 {
		replicas, minISR = "3", "2"
	}
	properties := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(l.id),
		"controller.quorum.voters":       voters,
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "PLAIN",
		"listeners":                      listeners,
		"advertised.listeners":           advertised,
		"listener.security.protocol.map": protocols,
		"log.dirs":                       filepath.Join(l.dir, "data"),
		"auto.create.topics.enable":      "false",

		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              minISR,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "5",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    minISR,
		"transaction.state.log.num.partitions":             "5",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            minISR,

		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"group.initial.rebalance.delay.ms":                            "0",
	}
	if options.DataDir != nil {
		if dir := options.DataDir(l.id); dir != "" {
			properties["log.dirs"] = dir
		}
	}
	maps.Copy(properties, options.Properties)
	return properties
}

// write makes the directory with server.properties and both kinds of logging
// configuration.
func (l layout) write() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("make a broker's directory: %w", err)
	}
	for name, content := range map[string]string{
		propertiesFile: propertiesText(l.properties),
		log4j1File:     log4j1Config,
		log4j2File:     log4j2Config,
	} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write a broker's configuration: %w", err)
		}
	}
	return nil
}

const (
	propertiesFile = "server.properties"
	log4j1File     = "log4j.properties" // Kafka 3.x
	log4j2File     = "log4j2.yaml"      // Kafka 4.x

	// Both leave out the list of all settings, which each start would print.
	log4j1Config = `log4j.rootLogger=INFO, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %m (%c)%n
log4j.logger.kafka.server.KafkaConfig=WARN
log4j.logger.org.apache.kafka.common.config=WARN
`
	log4j2Config = `Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: INFO
      AppenderRef:
        - ref: STDOUT
    Logger:
      - name: kafka.server.KafkaConfig
        level: WARN
      - name: org.apache.kafka.common.config
        level: WARN
`
)

var propertyEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`)

func propertiesText(properties map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&b, "%s=%s\n", key, propertyEscapes.Replace(properties[key]))
	}
	return b.String()
}

// Ports below the range that Linux deals out to outgoing connections, in blocks of
// which each belongs to one cluster of one process: so none is taken while a broker
// is down.
const (
	lowestPort = 20000
	portBlocks = 120
	blockPorts = 100
)

// claimPorts finds free ports, and keeps other clusters away from them until they are
// given back.
func claimPorts(count int) (free []int, giveBack func(), err error) {
	for _, block := range mathrand.Perm(portBlocks) {
		first := lowestPort + block*blockPorts
		giveBack, err := tryLock(filepath.Join(os.TempDir(), fmt.Sprintf("cdrbus-kafka-ports-%d.lock", first)))
		if err != nil {
			continue // another cluster's, or another user's
		}
		if free := freePorts(first, count); len(free) == count {
			return free, giveBack, nil
		}
		giveBack()
	}
	return nil, nil, errors.New("find free ports: none left on the loopback interface")
}

// freePorts returns so many ports of a block, or fewer if there are no more.
func freePorts(first, count int) (free []int) {
	for port := first; port < first+blockPorts && len(free) < count; port++ {
		if listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			_ = listener.Close()
			free = append(free, port)
		}
	}
	return free
}

// clusterIDOf writes an ID as Kafka does. It never begins with a dash, which the
// storage tool would take for an option: one start in 64 failed so.
func clusterIDOf(id [16]byte) string {
	id[0] &= 0x7f // the first character is one of the first 32, which are letters
	return base64.RawURLEncoding.EncodeToString(id[:])
}
