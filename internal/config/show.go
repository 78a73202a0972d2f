package config

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml"
)

// MarshalText writes what String tells.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalText writes what String tells.
func (s Start) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Show returns the configuration in force as YAML: every key, defaults and
// environment included. Of a secret it tells only where it comes from. With
// secrets from files alone, the text can be loaded again.
func (c *Config) Show() (string, error) {
	text, err := yaml.MarshalWithOptions(c, durationsAsText, yaml.IndentSequence(true))
	if err != nil {
		return "", fmt.Errorf("show configuration: %w", err)
	}
	return string(text), nil
}

// ShowJSON is Show as JSON.
func (c *Config) ShowJSON() ([]byte, error) {
	text, err := c.Show()
	if err != nil {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", err)
	}
	return asJSON, nil
}

var durationsAsText = yaml.CustomMarshaler(func(d time.Duration) ([]byte, error) {
	return []byte(formatDuration(d)), nil
})
