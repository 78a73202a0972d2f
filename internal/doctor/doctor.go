// Package doctor holds each assumption of a configuration against the world, as
// far as that can be done without asking Webex for records and without writing
// anything to Kafka: each check is good, a warning or a failure with its remedy.
//
// What only the feed's own answers can tell is the matter of package probe.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/config"
	"cdrbus/internal/config/secretfile"
	"cdrbus/internal/daemon"
	"cdrbus/poller"
	"cdrbus/producer"
	"cdrbus/schema"
)

// Status is what a check came to.
type Status string

// The outcomes of a check, from good to bad. Note is what cannot be checked here.
const (
	OK   Status = "ok"
	Note Status = "note"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one assumption, and what became of it.
type Check struct {
	Subject string `json:"subject"`
	Status  Status `json:"status"`
	Says    string `json:"says"`
	Remedy  string `json:"remedy,omitempty"`
}

// examination is one run.
type examination struct {
	config  *config.Config
	dialing daemon.Dialing
	checks  []Check
}

// checkPatience bounds each check that waits for somebody else.
const checkPatience = 30 * time.Second

// Examine makes all checks of a configuration that has been loaded; sources are
// those meant, nil for all.
func Examine(ctx context.Context, cfg *config.Config, sources []string, dialing daemon.Dialing) []Check {
	e := &examination{config: cfg, dialing: dialing}
	e.configuration()
	e.sources(ctx, sources)
	e.kafka(ctx)
	e.registry(ctx)
	return e.checks
}

// Failed reports whether a check found what keeps cdrbus from its promises.
func Failed(checks []Check) bool {
	return slices.ContainsFunc(checks, func(c Check) bool { return c.Status == Fail })
}

func (e *examination) add(subject string, status Status, remedy, format string, args ...any) {
	e.checks = append(e.checks, Check{Subject: subject, Status: status, Says: fmt.Sprintf(format, args...), Remedy: remedy})
}

// configuration: it has been loaded, and so have all secrets been read once.
func (e *examination) configuration() {
	e.add("configuration", OK, "", "it can be read, and its secret files are there and not exposed (%d sources, delivery %s)", len(e.config.Sources), e.config.Delivery)
	for _, warning := range e.config.Warnings() {
		e.add("configuration", Warn, "", "%s", warning)
	}
}

// sources checks tokens and hosts, each once.
func (e *examination) sources(ctx context.Context, wanted []string) {
	groups, hosts := map[string]bool{}, map[string]bool{}
	for i := range e.config.Sources {
		source := &e.config.Sources[i]
		if len(wanted) > 0 && !slices.Contains(wanted, source.Name) {
			continue
		}
		if !groups[source.Group()] {
			groups[source.Group()] = true
			e.token(ctx, source)
		}
		if address, err := source.FeedURL(); err == nil && !hosts[address.Host] {
			hosts[address.Host] = true
			e.host(ctx, address, "set url to the host of the organisation's region, and let it through the firewall or name the proxy in http.proxy")
		}
		credential := e.config.CredentialOf(source)
		if credential == nil {
			continue
		}
		if address, err := url.Parse(credential.TokenURL); err == nil && !hosts[address.Host] {
			hosts[address.Host] = true
			e.host(ctx, address, "tokens are renewed there: let it through the firewall, or name the proxy in http.proxy")
		}
	}
	e.add("access", Note, "a missing scope and a missing role look alike: the token needs the scope spark-admin:calling_cdr_read, and the account behind it the permission \"Webex Calling Detailed Call History API access\" (Control Hub, Administration roles); run doctor --probe",
		"whether the tokens may read records is told only by asking for some")
}

// token checks that there is one, renewing it where that is due.
func (e *examination) token(ctx context.Context, source *config.Source) {
	subject := "token of " + source.Group()
	credential := e.config.CredentialOf(source)
	if credential != nil && credential.TokensInKafka() {
		e.add(subject, Note, "look at the daemon's status", "it lies in Kafka, where only the daemon that owns the shard may renew it")
		return
	}
	if credential != nil && !e.tokenStore(credential) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	tokens, err := daemon.OpenTokens(e.config, source, e.dialing)
	if err == nil {
		var token poller.Token
		if token, err = tokens.Token(ctx); err == nil {
			e.add(subject, OK, "", "%s", lifetime(token))
		}
	}
	var stopped *poller.Stopped
	var later *poller.RetryLater
	switch {
	case errors.As(err, &stopped):
		e.add(subject, Fail, stopped.Remedy, "%s", stopped.Message)
	case errors.As(err, &later):
		e.add(subject, Fail, "try again in "+later.After.Round(time.Second).String(), "%v", later.Cause)
	case err != nil:
		e.add(subject, Fail, "see the message", "%v", err)
	}
	if app, ok := tokens.(*poller.ServiceApp); ok {
		if warning := app.Warning(time.Now()); warning != "" && err == nil {
			e.add(subject, Warn, "", "%s", warning)
		}
	}
}

func lifetime(token poller.Token) string {
	if token.Expiry.IsZero() {
		return "there is one; how long it is good for is not known"
	}
	return "there is one, good until " + token.Expiry.UTC().Format(time.RFC3339)
}

// tokenStore checks that new tokens could be written in the place of the old, and
// reports whether there are any.
func (e *examination) tokenStore(credential *config.Credential) (there bool) {
	subject := "token store of credential " + credential.Name
	if err := secretfile.Check(credential.TokenStore); err != nil {
		e.add(subject, Fail, `write {"version": 1, "refresh_token": "..."} to it, mode 0600`, "%v", err)
		return false
	}
	folder := filepath.Dir(credential.TokenStore)
	trial, err := os.CreateTemp(folder, ".cdrbus-doctor-*")
	if err != nil {
		e.add(subject, Fail, "let this user write to "+folder, "a renewed token could not be stored: %v", errors.Unwrap(err))
		return false // renewing would lose the refresh token
	}
	_, err = trial.Write(make([]byte, 64<<10)) // more than a store ever holds
	err = errors.Join(err, trial.Close(), os.Remove(trial.Name()))
	if err != nil {
		e.add(subject, Fail, "make room in "+folder, "a renewed token could not be stored: %v", err)
		return false
	}
	e.add(subject, OK, "", "it is there, not exposed, and a renewed token can be stored beside it")
	return true
}

const (
	clockWarn = 5 * time.Second
	clockFail = 2 * time.Minute
)

// host checks that a host answers, that its certificate is trusted, and that its
// clock agrees with ours. It sends no token, and asks for nothing.
func (e *examination) host(ctx context.Context, address *url.URL, remedy string) {
	subject := "host " + address.Host
	options, err := daemon.FeedHTTP(e.config, e.dialing)
	if err != nil {
		e.add(subject, Fail, "mend the section http of the configuration", "%v", err)
		return
	}
	client := poller.NewHTTPClient(options)
	defer client.CloseIdleConnections()
	e.reach(ctx, client, subject, (&url.URL{Scheme: address.Scheme, Host: address.Host, Path: "/"}).String(), remedy)
}

// reach makes one request without any credential. Whatever the status, the host is there.
func (e *examination) reach(ctx context.Context, client *http.Client, subject, address, remedy string) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		e.add(subject, Fail, remedy, "its address cannot be read")
		return
	}
	sent := time.Now()
	response, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		e.add(subject, Fail, remedy, "it cannot be reached: %v", err)
		return
	}
	response.Body.Close()
	secured := "over plain http"
	if response.TLS != nil {
		secured = "its certificate is trusted"
	}
	e.add(subject, OK, "", "it answers, %s", secured)
	ahead, dated := poller.SkewOf(response.Header, sent, time.Now())
	e.clock(subject, ahead, dated)
}

// clock judges by how much the clock of a host is ahead of ours.
func (e *examination) clock(subject string, ahead time.Duration, dated bool) {
	if !dated {
		e.add("clock against "+subject, Warn, "windows are judged by this machine's clock then: keep it right with NTP", "it tells no time")
		return
	}
	status := OK
	switch {
	case ahead.Abs() > clockFail:
		status = Fail
	case ahead.Abs() > clockWarn:
		status = Warn
	}
	remedy := ""
	if status != OK {
		remedy = "set this machine's clock right (NTP): what is old enough to ask for is planned by it"
	}
	e.add("clock against "+subject, status, remedy, "it is %s", poller.DescribeSkew(ahead))
}

// kafka checks brokers and topics. Whether this user may write shows at the first
// commit: to try it would be to write.
func (e *examination) kafka(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*checkPatience)
	defer cancel()
	report, err := daemon.CheckTopics(ctx, e.config, e.dialing)
	var problems *producer.TopicsError
	switch {
	case errors.As(err, &problems):
		for _, problem := range problems.Problems {
			e.topicProblem(problem)
		}
	case err != nil:
		e.add("kafka", Fail, "check kafka.brokers, kafka.tls and kafka.sasl", "%v", err)
		return
	default:
		e.add("kafka", OK, "", "the brokers answer, and all topics are as they must be")
		e.add("kafka", Note, "if commits are refused, the message names the right that is missing", "whether this user may write, and use transactions, shows at the first commit")
	}
	for _, warning := range report.Warnings {
		e.add("kafka", Warn, "", "%s", warning)
	}
}

// topicProblem judges a problem. A topic that is missing is none, if it may be created.
func (e *examination) topicProblem(problem producer.TopicProblem) {
	subject := "kafka brokers"
	if problem.Topic != "" {
		subject = "topic " + problem.Topic
	}
	if e.config.Kafka.CreateTopics && strings.HasPrefix(problem.Wrong, "does not exist") {
		e.add(subject, Note, "", "it does not exist, or the ACLs hide it; run creates it")
		return
	}
	e.add(subject, Fail, problem.Remedy, "%s", problem.Wrong)
}

// registry checks both schemas, and registers none.
func (e *examination) registry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	registry, err := daemon.NewRegistry(e.config, e.dialing.DialFeed)
	if err != nil {
		e.add("schema registry", Fail, "mend the section schema_registry of the configuration", "%v", err)
		return
	}
	for _, subject := range daemon.Subjects(e.config) {
		result, err := registry.Check(ctx, subject.Name, subject.Schema)
		if err != nil {
			e.add("schema registry", Fail, "check schema_registry", "%v", err)
			return
		}
		e.subject(subject.Name, result)
	}
}

func (e *examination) subject(name string, result schema.Compatibility) {
	subject := "subject " + name
	switch {
	case !result.Compatible:
		e.add(subject, Fail, "see cdrbus schema check; another program owns this subject, or a later cdrbus has registered its schema", "the registry would refuse this schema: %s", strings.Join(result.Messages, "; "))
	case result.ID != 0:
		e.add(subject, OK, "", "the schema is registered with id %d", result.ID)
	case e.config.SchemaRegistry.AutoRegister:
		e.add(subject, Note, "", "the schema is not registered yet, and would be accepted; run registers it")
	default:
		e.add(subject, Fail, "run cdrbus schema register with an account that may, or switch auto_register on", "the schema is not registered, and auto_register is off")
	}
}
