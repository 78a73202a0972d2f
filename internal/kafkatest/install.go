package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// installation is one version of Kafka on this machine.
type installation struct {
	java   string // the java command
	libs   string // directory of the jars
	newLog bool   // log4j 2 instead of log4j 1: since 4.0
}

// pom names the broker and a binding for its log, which the broker leaves open;
// Maven adds what they need. The command line tools (kafka-tools) are not
// needed, and not published with every release.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdrbus</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version></dependency>
    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>
  </dependencies>
</project>
`

// logBinding is the Maven artifact that carries Kafka's log to log4j.
func logBinding(newLog bool) (group, artifact, version string) {
	if newLog {
		return "org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5"
	}
	return "org.slf4j", "slf4j-reload4j", "1.7.36"
}

var versionPattern = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// install finds Java and, if this version is not in the cache yet, downloads it.
func install(ctx context.Context, version string) (installation, error) {
	if !versionPattern.MatchString(version) {
		return installation{}, fmt.Errorf("version %q: want one like %s", version, NewestKafka4)
	}
	java, err := findJava()
	if err != nil {
		return installation{}, err
	}
	major, _ := strconv.Atoi(version[:strings.IndexByte(version, '.')]) // the pattern holds
	cache, err := cacheDir()
	if err != nil {
		return installation{}, err
	}
	found := installation{java: java, libs: filepath.Join(cache, version), newLog: major >= 4}
	unlock, err := lock(found.libs + ".lock")
	if err != nil {
		return installation{}, err
	}
	defer unlock()
	if _, err := os.Stat(found.libs); errors.Is(err, os.ErrNotExist) {
		if err := download(ctx, version, found); err != nil {
			return installation{}, err
		}
	} else if err != nil {
		return installation{}, fmt.Errorf("look into the cache: %w", err)
	}
	return found, nil
}

// download fills to.libs. The name appears only when all jars are there.
func download(ctx context.Context, version string, to installation) error {
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("mvn is not in PATH: install Maven (Debian package maven)")
	}
	work, err := os.MkdirTemp(filepath.Dir(to.libs), version+".download-")
	if err != nil {
		return fmt.Errorf("make a directory for the download: %w", err)
	}
	defer os.RemoveAll(work)
	project := filepath.Join(work, "pom.xml")
	group, artifact, bindingVersion := logBinding(to.newLog)
	if err := os.WriteFile(project, fmt.Appendf(nil, pom, version, group, artifact, bindingVersion), 0o644); err != nil {
		return fmt.Errorf("write Maven project: %w", err)
	}
	jars := filepath.Join(work, "libs")
	output, err := exec.CommandContext(ctx, maven, "--batch-mode", "--quiet", "--file", project,
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+jars).CombinedOutput()
	if err != nil {
		return fmt.Errorf("download from Maven Central: %w\n%s", err, output)
	}
	if err := os.Rename(jars, to.libs); err != nil {
		return fmt.Errorf("move the download into the cache: %w", err)
	}
	return nil
}

// cacheDir is in the user's cache directory, and in the temporary one for a
// user without a home.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
	}
	dir := filepath.Join(base, "cdrbus", "kafka")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java := filepath.Join(home, "bin", "java")
		if _, err := os.Stat(java); err != nil {
			return "", fmt.Errorf("JAVA_HOME is set, but: %w", err)
		}
		return java, nil
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", errors.New("java is not in PATH and JAVA_HOME is not set: install a Java 17 runtime (Debian package openjdk-17-jre-headless)")
	}
	return java, nil
}
