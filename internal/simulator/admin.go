package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/pflag"
)

// refuse answers a request to one of the simulator's own endpoints.
func refuse(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v) // the client is gone if it fails
}

// serveStats tells what was asked and answered, and each violation.
func (s *Simulator) serveStats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, struct {
		Stats
		First []Violation `json:"first_violations"`
	}{s.Stats(), s.Violations()})
}

// control is the body of POST /control: every part is optional.
type control struct {
	// Organization limits the change to one; it has answers of its own then.
	Organization string `json:"organization"`
	// Profiles are applied to the answers first, in order.
	Profiles []string `json:"profiles"`
	// Set holds switches as on the command line, without the dashes.
	Set map[string]string `json:"set"`
	// Inject are faults for the next requests of the organization.
	Inject []Fault `json:"inject"`
}

const maxControlBytes = 1 << 20

// serveControl shows the switches in force (GET) or changes them (POST).
func (s *Simulator) serveControl(w http.ResponseWriter, r *http.Request) {
	organization := r.URL.Query().Get("organization")
	if r.Method == http.MethodPost {
		var c control
		decoder := json.NewDecoder(io.LimitReader(r.Body, maxControlBytes))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&c); err != nil {
			refuse(w, fmt.Errorf("read the change: %w", err))
			return
		}
		if c.Organization == "" {
			c.Organization = organization
		}
		if err := s.control(c); err != nil {
			refuse(w, err)
			return
		}
		organization = c.Organization
	}
	answers, err := s.Answers(organization)
	if err != nil {
		refuse(w, err)
		return
	}
	switches := make(map[string]string)
	flags := pflag.NewFlagSet("control", pflag.ContinueOnError)
	answers.RegisterFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) { switches[f.Name] = f.Value.String() })
	writeJSON(w, switches)
}

// control carries out a change, all of it or nothing.
func (s *Simulator) control(c control) error {
	answers, err := s.Answers(c.Organization)
	if err != nil {
		return err
	}
	for _, name := range c.Profiles {
		if err := answers.ApplyProfile(name); err != nil {
			return err
		}
	}
	if err := setFlags(&answers, c.Set); err != nil {
		return err
	}
	if err := answers.Validate(); err != nil {
		return err
	}
	if len(c.Inject) > 0 {
		target := c.Organization
		if target == "" {
			target = s.orgs[0].Name
		}
		if err := s.Inject(target, c.Inject...); err != nil {
			return err
		}
	}
	if len(c.Profiles)+len(c.Set) == 0 {
		return nil
	}
	return s.Update(c.Organization, func(a *Answers) { *a = answers })
}

// setFlags sets switches by name, with the texts of the command line.
func setFlags(a *Answers, set map[string]string) error {
	flags := pflag.NewFlagSet("control", pflag.ContinueOnError)
	a.RegisterFlags(flags)
	for name, value := range set {
		if flags.Lookup(name) == nil {
			return fmt.Errorf("no switch %q: GET /control lists them", name)
		}
		if err := flags.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}
