package check

import (
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"

	"cdrbus/internal/config"
)

const unitFile = root + "deploy/systemd/cdrbus.service"

// loadUnit returns the values of each key of the unit, as SECTION.KEY.
func loadUnit(t *testing.T) map[string][]string {
	t.Helper()
	file, err := os.Open(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	options, err := unit.DeserializeOptions(file)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	for _, o := range options {
		values[o.Section+"."+o.Name] = append(values[o.Section+"."+o.Name], o.Value)
	}
	return values
}

func TestUnitIsConfined(t *testing.T) {
	values := loadUnit(t)
	for key, want := range map[string]string{
		"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
		"PrivateDevices": "yes", "CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "yes", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
		"UMask": "0077", "StateDirectory": "cdrbus", "StateDirectoryMode": "0700", "RestartPreventExitStatus": "2",
	} {
		if got := values["Service."+key]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if values["Service.SystemCallFilter"] == nil || values["Install.WantedBy"] == nil {
		t.Error("no filter of system calls, or nothing wants the service")
	}
}

// The example configuration is complete with what the unit puts into the
// environment, every credential is loaded, and nothing else is a secret.
func TestUnitSuppliesTheConfiguration(t *testing.T) {
	values := loadUnit(t)
	loaded := map[string]bool{}
	for _, credential := range values["Service.LoadCredential"] {
		name, source, found := strings.Cut(credential, ":")
		if !found || !strings.HasPrefix(source, "/etc/cdrbus/credentials/") {
			t.Errorf("credential %s comes from %s", name, source)
		}
		loaded[name] = true
	}
	var environ []string
	for _, variable := range values["Service.Environment"] {
		_, value, _ := strings.Cut(variable, "=")
		if name, found := strings.CutPrefix(value, "%d/"); !found || !loaded[name] {
			t.Errorf("%s is not a loaded credential", variable)
		}
		delete(loaded, path.Base(value))
		environ = append(environ, strings.Replace(variable, "%d", "/run/credentials/cdrbus.service", 1))
	}
	for name := range loaded {
		t.Errorf("credential %s is loaded and never used", name)
	}
	content, err := os.ReadFile(root + "deploy/systemd/cdrbus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("cdrbus.yaml", content, environ)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cfg.Credentials {
		if path.Dir(c.TokenStore) != "/var/lib/"+values["Service.StateDirectory"][0] {
			t.Errorf("token store %s is outside the state directory", c.TokenStore)
		}
	}
	if _, err := config.Parse("cdrbus.yaml", content, nil); err == nil {
		t.Error("the configuration is complete without the unit: the check proves nothing")
	}
}

// TestUnitVerifies asks systemd itself, where it is installed.
func TestUnitVerifies(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	out, _ := exec.Command(analyze, "verify", unitFile).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "cdrbus.service") && !strings.Contains(line, "is not executable") {
			t.Error(strings.TrimSpace(line))
		}
	}
}
