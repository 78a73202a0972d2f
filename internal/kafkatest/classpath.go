package kafkatest

import "path/filepath"

// Classpath is what Java code needs to use the very classes of this version.
func (c *Cluster) Classpath() string { return filepath.Join(c.libs, "*") }
