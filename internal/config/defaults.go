package config

import (
	"reflect"
	"slices"
	"time"
)

// Default returns the settings that hold where nothing is written. It has no
// sources.
func Default() *Config {
	return &Config{
		Delivery:  ExactlyOnce,
		Ownership: Static,
		Kafka: Kafka{
			Brokers: []string{"localhost:9092"},
			Topics: Topics{
				Events:     "webex.cdr.events",
				Offsets:    "webex.cdr.offsets",
				Windows:    "webex.cdr.windows",
				IDs:        "webex.cdr.ids",
				DeadLetter: "webex.cdr.deadletter",
				Jobs:       "webex.cdr.jobs",
			},
			CreateTopics:          true,
			Shards:                16,
			Partitions:            12,
			Compression:           LZ4,
			TransactionalIDPrefix: "cdrbus",
			Group:                 GroupMembership{SessionTimeout: 45 * time.Second},
			ClientID:              "cdrbus",
			MaxCommitBytes:        32 << 20,
			TransactionTimeout:    time.Minute,
			Retention:             Retention{Windows: 365 * day, DeadLetter: 365 * day},
		},
		SchemaRegistry: SchemaRegistry{URLs: URLs{"http://localhost:8081"}, AutoRegister: true},
		Events:         Events{CloudEventsHeaders: true},
		Memory:         Memory{MaxWindowBytes: 32 << 20, Budget: 64 << 20, MaxIDBytes: 1 << 30},
		Admin:          Admin{Listen: "127.0.0.1:9464"},
		Log:            Log{Level: "info", Format: "auto"},
	}
}

// defaultSource is what holds in each source where nothing is written.
func defaultSource() Source {
	return Source{
		URL:       "https://analytics-calling.webexapis.com/v1/cdr_feed",
		Endpoint:  Feed,
		Limits:    Limits{InitialPerMinute: 1, PagesPerMinute: 10},
		Lookback:  30 * day,
		MinAge:    5 * time.Minute,
		MaxWindow: 12 * time.Hour,
		Overlap:   time.Minute,
		Sweeps:    slices.Clone(defaultSweeps),
	}
}

var defaultSweeps = []Sweep{{Every: 15 * time.Minute, Back: 2 * time.Hour}, {Every: 12 * time.Hour, Back: 48 * time.Hour}}

// defaultCredential is what holds in each credential where nothing is written.
func defaultCredential() Credential {
	return Credential{TokenURL: "https://webexapis.com/v1/access_token"}
}

// setItemDefaults fills a new item of a list.
func setItemDefaults(item reflect.Value) {
	switch into := item.Addr().Interface().(type) {
	case *Source:
		*into = defaultSource()
	case *Credential:
		*into = defaultCredential()
	}
}

// journalMargin is how much longer than the feed's lookback the ID journal must
// reach: a window published on the last day must still be known when it is read
// again.
const journalMargin = 7 * day

// fillDerived sets the defaults that depend on other settings.
func (c *Config) fillDerived() {
	for i := range c.Sources {
		s := &c.Sources[i]
		if slices.Equal(s.Sweeps, defaultSweeps) {
			for j := range s.Sweeps {
				s.Sweeps[j].Back = min(s.Sweeps[j].Back, s.Lookback)
				s.Sweeps[j].Every = min(s.Sweeps[j].Every, s.Sweeps[j].Back)
			}
			s.Sweeps = slices.CompactFunc(s.Sweeps, func(a, b Sweep) bool { return a.Back == b.Back })
		}
	}
	if c.Kafka.Retention.IDs == 0 {
		c.Kafka.Retention.IDs = c.longestLookback() + journalMargin
	}
}

func (c *Config) longestLookback() time.Duration {
	longest := time.Duration(0)
	for i := range c.Sources {
		longest = max(longest, c.Sources[i].Lookback)
	}
	return longest
}
