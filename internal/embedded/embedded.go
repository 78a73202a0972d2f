// Package embedded runs a Kafka cluster and a schema registry inside the
// process, for the demo and for tests: nothing to install, nothing to clean up.
//
// The broker is kfake and the registry srfake, both from franz-go. They are
// kinder than the real ones: kfake never answers CONCURRENT_TRANSACTIONS, takes
// a stale epoch back, replicates and throttles nothing. What depends on a
// broker's own mind is proven against a real Kafka by package kafkatest.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// Options say how to start a Cluster. The zero value is one broker and a
// registry on free ports of the loopback interface, kept in memory.
type Options struct {
	// Brokers is the number of brokers; 0 means 1.
	Brokers int

	// Ports are the brokers' ports, one for each broker, when they have to be
	// known beforehand; they set the number of brokers. Default: free ports.
	Ports []int

	// RegistryPort is the registry's port; 0 means a free one.
	RegistryPort int

	// Network, if set, carries everything in memory instead of TCP, as
	// testing/synctest needs. Clients then dial with Cluster.DialContext.
	// Brokers listen on Ports or from 9092 on, the registry on RegistryPort or 8081.
	Network *kfake.VirtualNetwork

	// ListenFn, if set, opens every listener instead of net.Listen: the place
	// for a layer of faults around the accepted connections. With Network it
	// should call Network.Listen.
	ListenFn func(network, address string) (net.Listener, error)

	// DataDir, if set, keeps the topics, offsets and producers there and loads
	// them again at the next start. The registry always starts empty and deals
	// out the same ids again to schemas registered in the same order.
	DataDir string

	// Kafka and Registry are further options of the two, such as
	// kfake.EnableSASL, kfake.TLS, kfake.EnableACLs or srfake.WithAuth.
	Kafka    []kfake.Opt
	Registry []srfake.Option
}

// Cluster is a running broker cluster with its registry. Its methods are safe
// for concurrent use.
type Cluster struct {
	// Kafka is the broker cluster itself, for tests that inject faults
	// (Fault, ControlKey), move partitions or compact.
	Kafka *kfake.Cluster
	// Registry is the registry itself, for tests that intercept requests.
	Registry *srfake.Registry

	brokers     []string
	registryURL string
	server      *http.Server
	serverDone  chan struct{} // closed when the registry's server has ended
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
}

// Defaults on an in-memory network, which has no free ports to ask for.
const (
	firstVirtualBrokerPort = 9092
	virtualRegistryPort    = 8081
)

// closeTimeout bounds how long Close waits for registry requests under way.
const closeTimeout = 5 * time.Second

// Start starts brokers and registry; they answer when it returns. The caller
// closes the Cluster.
func Start(opts Options) (*Cluster, error) {
	opts = opts.withDefaults()
	kafka, err := kfake.NewCluster(opts.kafkaOptions()...)
	if err != nil {
		return nil, fmt.Errorf("start embedded Kafka: %w", err)
	}
	c := &Cluster{
		Kafka:      kafka,
		Registry:   srfake.NewRegistry(opts.Registry...),
		brokers:    kafka.ListenAddrs(),
		serverDone: make(chan struct{}),
		dial:       (&net.Dialer{}).DialContext,
	}
	if opts.Network != nil {
		c.dial = opts.Network.DialContext
	}
	if err := c.serveRegistry(opts); err != nil {
		kafka.Close()
		return nil, err
	}
	return c, nil
}

func (o Options) withDefaults() Options {
	if len(o.Ports) != 0 {
		o.Brokers = len(o.Ports)
	} else if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.Network != nil {
		if len(o.Ports) == 0 {
			for i := range o.Brokers {
				o.Ports = append(o.Ports, firstVirtualBrokerPort+i)
			}
		}
		if o.RegistryPort == 0 {
			o.RegistryPort = virtualRegistryPort
		}
		if o.ListenFn == nil {
			o.ListenFn = o.Network.Listen
		}
	}
	if o.ListenFn == nil {
		o.ListenFn = net.Listen
	}
	return o
}

func (o Options) kafkaOptions() []kfake.Opt {
	opts := []kfake.Opt{kfake.NumBrokers(o.Brokers), kfake.ListenFn(o.ListenFn)}
	if len(o.Ports) != 0 {
		opts = append(opts, kfake.Ports(o.Ports...))
	}
	if o.DataDir != "" {
		opts = append(opts, kfake.DataDir(o.DataDir))
	}
	return append(opts, o.Kafka...)
}

// serveRegistry serves the registry on a listener of ours rather than on
// httptest's, so that port and network are the caller's choice.
func (c *Cluster) serveRegistry(opts Options) error {
	listener, err := opts.ListenFn("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(opts.RegistryPort)))
	if err != nil {
		return fmt.Errorf("start embedded schema registry: %w", err)
	}
	c.registryURL = "http://" + listener.Addr().String()
	c.server = &http.Server{Handler: c.Registry.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(c.serverDone)
		// Serve always returns an error; ErrServerClosed is Close's doing, and
		// any other shows at the client as a refused connection.
		_ = c.server.Serve(listener)
	}()
	return nil
}

// Brokers returns the bootstrap addresses, host:port.
func (c *Cluster) Brokers() []string { return append([]string(nil), c.brokers...) }

// RegistryURL returns the base URL of the registry.
func (c *Cluster) RegistryURL() string { return c.registryURL }

// DialContext connects to a broker or to the registry over the network that
// the cluster was started on. It fits kafkaconn.Options and http.Transport.
func (c *Cluster) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return c.dial(ctx, network, address)
}

// Close stops brokers and registry and, with a DataDir, saves the brokers'
// state. A second Close does nothing.
func (c *Cluster) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := c.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = c.server.Close()
	}
	<-c.serverDone
	c.Kafka.Close()
	if err != nil {
		return fmt.Errorf("close embedded schema registry: %w", err)
	}
	return nil
}
