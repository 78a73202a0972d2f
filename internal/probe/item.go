package probe

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"
)

// identity stands for a Report ID, or for the bytes of an item without one. It
// is a hash under the key of the run: two runs cannot be compared.
type identity [16]byte

// Item is one record in short.
type Item struct {
	ID      identity
	HasID   bool
	Content uint64 // equal for records that cdrbus would take for the same
	fields  map[string]uint64

	// Times in milliseconds since the epoch; 0: none that can be read.
	Report, Release, Start, Answer int64
	Duration                       int64 // seconds; -1: none
}

// The fields that are looked into, folded.
const (
	reportIDField    = "report id"
	reportTimeField  = "report time"
	releaseTimeField = "release time"
	startTimeField   = "start time"
	answerTimeField  = "answer time"
	durationField    = "duration"
)

// digestItem keeps a record in short, and counts how its fields are written. The
// hashes of its fields are kept where changes are to be named.
func (o *Observations) digestItem(raw json.RawMessage, keepFields bool) Item {
	item := Item{Duration: -1}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		o.Fields.notObjects++
		item.ID, item.Content = o.hash(raw), 1
		return item
	}
	o.Fields.records++
	if keepFields {
		item.fields = make(map[string]uint64, len(members))
	}
	for name, value := range members {
		folded := strings.ToLower(name)
		text, kind := scalar(value)
		o.Fields.note(name, folded, kind)
		if kind.isBlank() {
			continue
		}
		h := o.hash([]byte(folded), []byte(text))
		sum := binary.LittleEndian.Uint64(h[:])
		item.Content += sum // in any order
		if keepFields {
			item.fields[folded] = sum
		}
		o.readField(&item, folded, text)
	}
	if !item.HasID {
		o.Fields.withoutID++
		item.ID = o.hash(raw)
	}
	return item
}

func (o *Observations) readField(item *Item, folded, text string) {
	switch folded {
	case reportIDField:
		item.ID, item.HasID = o.hash([]byte(text)), true
		o.Fields.noteID(text)
	case reportTimeField:
		item.Report = millis(text)
	case releaseTimeField:
		item.Release = millis(text)
	case startTimeField:
		item.Start = millis(text)
	case answerTimeField:
		item.Answer = millis(text)
	case durationField:
		var seconds int64
		if json.Unmarshal([]byte(text), &seconds) == nil {
			item.Duration = seconds
		}
	}
}

func (o *Observations) hash(parts ...[]byte) (id identity) {
	h := sha256.New()
	h.Write(o.salt[:])
	for _, part := range parts {
		h.Write(part)
		h.Write([]byte{0})
	}
	copy(id[:], h.Sum(nil))
	return id
}

func millis(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}

// seconds rounds a time down to the feed's grain.
func seconds(millis int64) int64 { return millis / 1000 }
