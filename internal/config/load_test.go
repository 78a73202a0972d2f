package config

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folderOf writes files, by name, and returns their folder. A name that ends in
// @MODE sets the mode; others get 0600.
func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		mode := fs.FileMode(0o600)
		if plain, octal, found := strings.Cut(name, "@"); found {
			name = plain
			if _, err := fmt.Sscanf(octal, "%o", &mode); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // the umask took bits away
			t.Fatal(err)
		}
	}
	return folder
}

func TestLoadLooksAtEveryFile(t *testing.T) {
	folder := folderOf(t, map[string]string{
		"cdrbus.yaml": `
kafka:
  tls: {enabled: true, ca_file: not-pem, cert_file: certs/none.pem, key_file: key.pem}
  sasl: {mechanism: plain, username: u, password_file: hunter2}
schema_registry: {url: "https://registry", bearer_token_file: secrets/missing, tls: {ca_file: not-pem}}
sources:
  - {name: open, token_file: open, start: 24h}
  - {name: blank, token_file: blank, start: 24h}
  - {name: folder, token_file: secrets, start: 24h}
  - {name: fine, token_file: group, start: 24h}
credentials:
  - {name: one, client_id_file: group, client_secret_file: lines, token_store: nowhere/one.json}
  - {name: two, client_id_file: group, client_secret_file: group, token_store: open}
  - {name: three, client_id_file: group, client_secret_file: group, token_store: secrets/not-yet.json}
http: {ca_file: not-pem}
`,
		"not-pem": "x", "key.pem@644": "key", "open@644": "hunter2", "blank": " \n", "group@440": "fine", "lines": "hunter2\nhunter2", "secrets/x": "",
	})
	path := filepath.Join(folder, "cdrbus.yaml")
	c, err := Load(path, nil)
	if err == nil {
		t.Fatalf("Load succeeded: %v", c)
	}
	got := strings.ReplaceAll(err.Error(), folder, "/cfg") + "\n"
	golden(t, filepath.Join("testdata", "files.txt"), got)
	if strings.Contains(got, "hunter2") {
		t.Errorf("the message shows a secret:\n%s", got)
	}
}

func TestLoadTakesRelativePathsFromItsFolder(t *testing.T) {
	folder := folderOf(t, map[string]string{
		"conf/cdrbus.yaml": "sources: [{name: a, credential: c, start: 24h}]\ncredentials: [{name: c, client_id_file: ../id, client_secret_file: secret, token_store: store.json}]\n",
		"id":               "the-id\n", "conf/secret": "the-secret",
	})
	c, err := Load(filepath.Join(folder, "conf", "cdrbus.yaml"), []string{"CDRBUS_SOURCES_A_START=earliest"})
	if err != nil {
		t.Fatal(err)
	}
	credential := c.CredentialOf(&c.Sources[0])
	if got, want := credential.TokenStore, filepath.Join(folder, "conf", "store.json"); got != want {
		t.Errorf("token_store is %s, want %s", got, want)
	}
	if id, err := credential.ClientID.Read(); id != "the-id" || err != nil {
		t.Errorf("client ID is %q, %v", id, err)
	}
	if c.Sources[0].Start.String() != "earliest" {
		t.Errorf("start is %s: the environment was not applied", c.Sources[0].Start)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	c, err := Load("", []string{"CDRBUS_SOURCES_0_NAME=a", "CDRBUS_SOURCES_0_TOKEN=hunter2", "CDRBUS_SOURCES_A_START=24h"})
	if err != nil {
		t.Fatal(err)
	}
	if token, err := c.Sources[0].Token.Read(); token != "hunter2" || err != nil {
		t.Errorf("token is %q, %v", token, err)
	}
	_, err = Load("", []string{"CDRBUS_SOURCES_0_NAME=a"})
	const want = "configuration refused, 2 problems:\n" +
		"  CDRBUS_SOURCES_0_*: sources[0].credential: is missing; name a credential, or a token_file with a bare access token\n" +
		"  CDRBUS_SOURCES_0_*: sources[0].start: is missing; say where a new source begins: a time ago such as 24h, an RFC 3339 time, or earliest"
	if err == nil || err.Error() != want {
		t.Errorf("Load of half a source: %v", err)
	}
}

func TestLoadOfNoFile(t *testing.T) {
	_, err := Load(filepath.Join("testdata", "none.yaml"), nil)
	if want := "configuration refused: testdata/none.yaml: does not exist; give the path of the configuration with -c"; err == nil || err.Error() != want {
		t.Errorf("Load of a missing file: %v, want %s", err, want)
	}
}

// TestSecretNeverShows tries every usual way of printing.
func TestSecretNeverShows(t *testing.T) {
	c, err := Parse("t.yaml", nil, []string{"CDRBUS_SOURCES_0_NAME=a", "CDRBUS_SOURCES_0_TOKEN=hunter2", "CDRBUS_SOURCES_0_START=1d"})
	if err != nil {
		t.Fatal(err)
	}
	secret := c.Sources[0].Token
	var shown bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&shown, verb, secret)
		fmt.Fprintf(&shown, verb, &secret)
		fmt.Fprintf(&shown, verb, *c)
		fmt.Fprintf(&shown, verb, c)
	}
	if err := json.NewEncoder(&shown).Encode(c); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&shown, nil)).Info("secret", "secret", secret, "config", c)
	for _, leak := range []string{"hunter2", "68756e74657232", "68756E74657232", "104 117 110"} {
		if strings.Contains(shown.String(), leak) {
			t.Errorf("the secret shows as %s", leak)
		}
	}
	if secret.String() != "(hidden, from CDRBUS_SOURCES_0_TOKEN)" {
		t.Errorf("the secret prints as %s", secret)
	}
}

func TestGroupsAndShardKeys(t *testing.T) {
	for _, c := range []struct {
		source     Source
		group, key string
	}{
		{Source{Name: "a", Credential: "acme"}, "credential acme", "acme"},
		{Source{Name: "a", Credential: "acme", ShardKey: "eu"}, "credential acme", "eu"},
		{Source{Name: "a", Token: SecretFile("/t")}, "token_file /t", "a"},
		{Source{Name: "a", Token: Secret{value: "x", from: "V"}}, "source a", "a"},
	} {
		if c.source.Group() != c.group || c.source.EffectiveShardKey() != c.key {
			t.Errorf("%v: group %q, shard key %q; want %q, %q", c.source, c.source.Group(), c.source.EffectiveShardKey(), c.group, c.key)
		}
	}
}

func TestRootCAs(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	folder := folderOf(t, map[string]string{"ca.pem@644": string(authority)})
	h := HTTP{CAFile: filepath.Join(folder, "ca.pem")}
	pool, err := h.RootCAs()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	response, err := client.Get(server.URL)
	if err != nil {
		t.Fatalf("the server of ca_file is not trusted: %v", err)
	}
	response.Body.Close()
	if pool, err := new(HTTP).RootCAs(); pool != nil || err != nil {
		t.Errorf("without ca_file the pool is %v, %v; want nil, the system's", pool, err)
	}
}

func TestProxy(t *testing.T) {
	folder := folderOf(t, map[string]string{"password": "p@ss"})
	h := HTTP{Proxy: "http://proxy:3128", ProxyUsername: "user", ProxyPassword: SecretFile(filepath.Join(folder, "password"))}
	proxy, err := h.ProxyURL()
	if err != nil || proxy.String() != "http://user:p%40ss@proxy:3128" {
		t.Errorf("proxy is %v, %v", proxy, err)
	}
	if proxy, err := new(HTTP).ProxyURL(); proxy != nil || err != nil {
		t.Errorf("no proxy is %v, %v", proxy, err)
	}
}
