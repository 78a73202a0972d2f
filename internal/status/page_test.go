package status

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	pageListen   = flag.String("page.listen", "", "serve the status page of -page.scenario at this address, to look at it")
	pageScenario = flag.String("page.scenario", "normal", "with -page.listen: empty, normal, many, stopped, demo, fleet, reserve, jobs, sweeps, coverage, coverage-12 or coverage-many")
	pageBrowser  = flag.String("page.browser", "", "path of a Chromium; check the page in it and take pictures")
	pageDir      = flag.String("page.dir", "", "with -page.browser: where the pictures go")
)

func TestServePage(t *testing.T) {
	if *pageListen == "" {
		t.Skip("asked for by -page.listen ADDRESS")
	}
	t.Logf("http://%s/", *pageListen)
	t.Fatal(http.ListenAndServe(*pageListen, scenarios[*pageScenario]().Handler()))
}

// TestPageInBrowser runs the page's script in a real browser, under the page's
// own policy, and looks for what it must show.
func TestPageInBrowser(t *testing.T) {
	if *pageBrowser == "" {
		t.Skip("asked for by -page.browser PATH")
	}
	for _, c := range []struct {
		scenario, picture, size string
		dark                    bool
		action                  string // script run a while after the page's own
		want                    []string
	}{
		{"empty", "empty", "1280,1100", false, "", []string{"No source yet", "none owned yet", "starting"}},
		{"normal", "normal", "1280,1500", false, "", []string{"acme-us", "backing off", "1 backing off", "personal data is masked", "•••"}},
		{"normal", "dark", "1280,1500", true, "", []string{"acme-us"}},
		{"normal", "narrow", "400,3000", false, "", []string{"acme-us"}},
		{"normal", "details", "1280,1500", false, `document.querySelector(".name").click()`,
			[]string{"Position", "counter 60", "Refresh token ends in", "Purpose"}},
		{"normal", "hover", "1280,900", false, `{ const strip = document.querySelector(".strip"), box = strip.getBoundingClientRect();
			strip.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2 })) }`,
			[]string{"#31 ", "committed in"}},
		{"many", "many", "1280,1600", false, "", []string{"customer-0049", "1–50 of 1,000"}},
		{"stopped", "stopped", "1280,1700", false, "", []string{"2 sources wait for you", "What to do: give the Service App", "records about to age out"}},
		{"demo", "demo", "1280,1300", false, "", []string{"Missing", "0 ✓", "Restarts survived", "killed in mid-commit"}},
		{"fleet", "fleet", "1280,1700", false, "", []string{"cdrbus-7c9f6d8b54-2xk8q", "this one", "3 sources · shards 0–3, 9", "in reserve", "4 members, 10 sources", "consumer group cdrbus.webex.cdr.offsets", "3 of 10 here"}},
		{"fleet", "fleet-narrow", "400,3400", false, "", []string{"this one"}},
		{"coverage", "coverage", "1280,1400", false, openTheHour, []string{"acme-eu", "settled to ", "read into it and published", "receipts", "Dead letters"}},
		{"coverage", "coverage-dark", "1280,1400", true, openTheHour, []string{"settled to "}},
		{"coverage", "coverage-narrow", "400,2600", false, openTheHour, []string{"settled to "}},
		{"coverage-12", "coverage-12", "1280,2600", false, "", []string{"globex-2", "unproven", "lost", "yesterday complete<", "yesterday incomplete", "yesterday in doubt", "yesterday: 2 sources incomplete", "not read yet", "records may still come late; complete about "}},
		{"coverage-12", "coverage-12-dark", "1280,2600", true, "", []string{"globex-2"}},
		{"coverage-12", "coverage-12-month", "1280,3200", false, `$("days").value = "31"; $("days").dispatchEvent(new Event("change"))`, []string{"globex-2"}},
		{"coverage-12", "coverage-12-narrow", "400,6800", false, "", []string{"globex-2"}},
		{"coverage-many", "coverage-many", "1280,1400", false, `$("find").value = "initech-24"; $("find").dispatchEvent(new Event("input"))`, []string{"initech-249"}},
		{"jobs", "jobs", "1280,1500", false, "", []string{"backfill of acme-eu", "43 %", "about 1 h 59 min left", "the broker does not answer", "4 missing, 1 doubled", "720h0m0s back", "25 min late", "reading, at", "1 source behind with sweeps", "clock", "10 min 3 s ahead of the feed"}},
		{"jobs", "jobs-dark", "1280,1500", true, `document.querySelector(".name").click()`, []string{"last 2 h every 15 min", "behind this machine's"}},
		{"jobs", "jobs-narrow", "400,3400", false, "", []string{"backfill of acme-eu"}},
		{"sweeps", "sweeps", "1280,3400", false, "", []string{"19 sources behind with sweeps", "33 min late", "7 more sources late, 11 sources on time"}},
		{"sweeps", "sweeps-dark", "1280,3400", true, "", []string{"customer-29"}},
		{"sweeps", "sweeps-narrow", "400,9000", false, "", []string{"customer-29"}},
		{"reserve", "reserve", "1280,900", true, "", []string{"○", "as of 3 min", "the other members have all sources"}},
	} {
		t.Run(c.picture, func(t *testing.T) {
			if c.action != "" {
				defer actOnPage("setTimeout(() => { " + c.action + " }, 1200);")()
			}
			server := httptest.NewServer(scenarios[c.scenario]().Handler())
			defer server.Close()
			dom := inBrowser(t, c.dark, c.size, "--dump-dom", server.URL)
			for _, want := range c.want {
				if !strings.Contains(dom, want) {
					t.Errorf("the page does not show %q", want)
				}
			}
			if strings.Contains(dom, "+12025550143") || strings.Contains(dom, "ann@example.com") {
				t.Error("the page shows personal data")
			}
			if *pageDir != "" {
				inBrowser(t, c.dark, c.size, "--screenshot="+filepath.Join(*pageDir, c.picture+".png"), server.URL)
			}
		})
	}
}

// openTheHour opens an hour of the first calendar.
const openTheHour = `document.querySelectorAll(".hour")[100].click()`

// actOnPage adds to the page's script, and allows that by the policy, until the
// returned function is called.
func actOnPage(script string) (restore func()) {
	was, wasPolicy := page, pagePolicy
	page = strings.Replace(page, "\npoll();\n", "\npoll();\n"+script+"\n", 1)
	pagePolicy = policyFor(page)
	return func() { page, pagePolicy = was, wasPolicy }
}

func inBrowser(t *testing.T, dark bool, size, action, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(),
		"--virtual-time-budget=2500", "--window-size=" + size, "--enable-logging=stderr", action}
	if strings.HasPrefix(size, "400,") { // a window is at least 500 wide, a phone is not
		args = append(args, "--force-device-scale-factor=1.25", "--window-size=500,"+strings.TrimPrefix(size, "400,"))
	}
	if dark {
		args = append(args, "--blink-settings=preferredColorScheme=0")
	}
	command := exec.CommandContext(ctx, *pageBrowser, append(args, url)...)
	var logged strings.Builder
	command.Stderr = &logged
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := command.Output()
	if err != nil {
		t.Fatalf("run %s: %v\n%s", *pageBrowser, err, logged.String())
	}
	for line := range strings.Lines(logged.String()) {
		if strings.Contains(line, ":CONSOLE") {
			t.Errorf("the browser's console says: %s", line)
		}
	}
	return string(out)
}
