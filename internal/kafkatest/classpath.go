package kafkatest

import (
	"os"
	"path/filepath"
)

// Classpath is what Java code needs to use the very classes of this version.
func (c *Cluster) Classpath() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "cdrbus", "kafka", c.Version, "*"), nil
}
