package daemon_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/simulator"
)

// serviceApps gives each source of a fleet a service app of its own, whose tokens
// lie in Kafka.
func (f *fleet) serviceApps() {
	write := func(name, content string) string {
		path := filepath.Join(f.folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			f.t.Fatal(err)
		}
		return path
	}
	key := write("key", strings.Repeat("k", 44))
	for i := range f.config.Sources {
		s := &f.config.Sources[i]
		s.Token, s.Credential = config.Secret{}, s.Name
		f.config.Credentials = append(f.config.Credentials, config.Credential{
			Name:         s.Name,
			ClientID:     config.SecretFile(write(s.Name+".id", "client-"+s.Name)),
			ClientSecret: config.SecretFile(write(s.Name+".secret", "secret-"+s.Name)),
			RefreshToken: config.SecretFile(write(s.Name+".refresh", "refresh-"+s.Name)),
			TokenStore:   config.KafkaTokenStore,
			TokenKey:     config.SecretFile(key),
			TokenURL:     fmt.Sprintf("http://localhost:%d/v1/access_token", feedPort),
		})
	}
}

const calm = "limits: {initial_per_minute: 1, pages_per_minute: 10}"

func withServiceApps(o *simulator.Options) {
	o.Answers.TokenLifetime = 20 * time.Minute
	for i := range o.Organizations {
		org := &o.Organizations[i]
		org.Token = ""
		org.ClientID, org.ClientSecret, org.RefreshToken = "client-"+org.Name, "secret-"+org.Name, "refresh-"+org.Name
	}
}

// TestTokensInKafka: refresh tokens that each refresh replaces, in a fleet whose
// members come and go. Every member finds the token that is good, because it was
// committed before it was used.
func TestTokensInKafka(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6, calm, withServiceApps)
		f.serviceApps()
		random := rand.New(rand.NewPCG(1, 4))
		for range 3 {
			f.join(0)
		}
		f.settled()
		for round := range 6 {
			time.Sleep(15 * time.Minute) // most tokens are renewed in that time
			some := f.members[random.IntN(len(f.members))]
			if round%2 == 0 {
				f.kill(some)
			} else {
				f.leave(some)
			}
			f.join(0)
			f.settled()
		}
		for len(f.members) > 0 {
			f.leave(f.members[0])
		}
		f.demandTruth(f.names()...)
		for _, violation := range f.feed.Violations() {
			t.Errorf("%+v", violation)
		}
		renewed := f.logs.FilterMessage("access token renewed").Len()
		t.Logf("%d renewals", renewed)
		if renewed < 6*4 {
			t.Errorf("%d renewals in an hour and a half of 6 tokens that live 20 minutes, want 24 and more", renewed)
		}
		for _, entry := range f.logs.All() {
			for _, secret := range []string{"refresh-org", "sim.r.", "sim.a.", "kkkkk"} {
				if text := entry.Message + fmt.Sprint(entry.ContextMap()); strings.Contains(text, secret) {
					t.Errorf("the log holds a secret: %s", text)
				}
			}
		}
		for _, record := range f.topic("webex.cdr.offsets", f.shards) {
			if strings.Contains(string(record.Value), "sim.r.") || strings.Contains(string(record.Value), "refresh-org") {
				t.Errorf("a token lies readable in Kafka: %s", record.Value)
			}
		}
	})
}

// TestTokensInKafkaBeginAnew: another refresh token in the file means that somebody
// has authorised anew; another key means that somebody has made a mistake.
func TestTokensInKafkaBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, calm, withServiceApps)
		f.serviceApps()
		m := f.join(0)
		f.settled()
		time.Sleep(time.Hour)
		f.leave(m)

		wrong := filepath.Join(f.folder, "wrong")
		if err := os.WriteFile(wrong, []byte(strings.Repeat("w", 44)), 0o600); err != nil {
			t.Fatal(err)
		}
		f.config.Credentials[0].TokenKey = config.SecretFile(wrong)
		m = f.join(0)
		time.Sleep(2 * time.Minute) // the next request may be allowed a minute after the last only
		source := m.board.Snapshot().Sources[0]
		if !strings.Contains(source.Reason, "sealed with another key") || !strings.Contains(source.Remedy, "key that all members share") {
			t.Errorf("with another key the source is %s: %s; %s", source.State, source.Reason, source.Remedy)
		}
		f.leave(m)

		// Another refresh token helps whoever has lost the key, too.
		if err := os.WriteFile(f.config.Credentials[0].RefreshToken.Path(), []byte("not a token"), 0o600); err != nil {
			t.Fatal(err)
		}
		m = f.join(0)
		time.Sleep(30 * time.Minute)
		if source := m.board.Snapshot().Sources[0]; !strings.Contains(source.Reason, "refresh token of credential org-000") {
			t.Errorf("a new refresh token was not tried: %s %s %s", source.State, source.Reason, source.Token.Warning)
		}
		f.leave(m)
	})
}

// slowTokens is a network on which the answers of the token endpoint take some time.
type slowTokens struct {
	dial  daemon.DialFunc
	delay time.Duration
	asked chan struct{} // capacity 1: a refresh is under way
}

func (s *slowTokens) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &slowTokenConn{Conn: conn, slow: s}, nil
}

type slowTokenConn struct {
	net.Conn
	slow  *slowTokens
	asked atomic.Bool // the next answer is the token endpoint's
}

func (c *slowTokenConn) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("POST /v1/access_token ")) {
		c.asked.Store(true)
		select {
		case c.slow.asked <- struct{}{}:
		default:
		}
	}
	return c.Conn.Write(p)
}

func (c *slowTokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.asked.CompareAndSwap(true, false) {
		time.Sleep(c.slow.delay)
	}
	return n, err
}

// TestTokensUnderWayAtTheEnd: a member that is asked to end while it refreshes its
// tokens still commits them. The refresh token that lies in Kafka, or in the file,
// was used up by that refresh.
func TestTokensUnderWayAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, calm, withServiceApps)
		f.serviceApps()
		slow := &slowTokens{dial: f.dialFeed, delay: 3 * time.Second, asked: make(chan struct{}, 1)}
		f.dialFeed = slow.Dial
		for refreshes := 1; refreshes <= 2; refreshes++ {
			m := f.join(0)
			<-slow.asked
			f.leave(m)
			if n := f.logs.FilterMessage("access token renewed").Len(); n != refreshes {
				t.Errorf("%d tokens were renewed after %d refreshes", n, refreshes)
			}
			time.Sleep(16 * time.Minute) // the token at hand is to be renewed
		}
		m := f.join(0)
		time.Sleep(5 * time.Minute)
		f.leave(m)
		for _, violation := range f.feed.Violations() {
			t.Errorf("%+v", violation)
		}
		f.demandTruth(f.names()...)
	})
}
