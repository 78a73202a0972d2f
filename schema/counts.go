package schema

// Counts is what an encoder has seen since it was made.
type Counts struct {
	Items       int64            // rejects included
	Rejects     map[Cause]int64  //
	Unknown     map[string]int64 // keys that the table lacks, by name; see OtherKeys
	Unparseable map[string]int64 // values that went into unmapped, by feed name
	FoldedKeys  int64            // keys that came more than once in a record, in whatever case
}

// OtherKeys is the name under which Counts.Unknown holds what is beyond the
// first 100 names, or has a name of more than 100 bytes: the feed must not be
// able to fill the memory with names.
const OtherKeys = "(other)"

const (
	maxUnknownNames     = 100
	maxUnknownNameBytes = 100
)

// tally is Counts while it is being counted.
type tally struct {
	items      int64
	rejects    [TooDeep + 1]int64
	unparsed   [fieldCount]int64
	unknown    map[string]*int64
	foldedKeys int64
}

func newTally() tally { return tally{unknown: map[string]*int64{}} }

func (t *tally) reset() {
	clear(t.unknown)
	*t = tally{unknown: t.unknown}
}

func (t *tally) addUnknown(name []byte) {
	if n, ok := t.unknown[string(name)]; ok {
		*n++
		return
	}
	if len(name) > maxUnknownNameBytes {
		t.addUnknownTo(OtherKeys, 1)
		return
	}
	t.addUnknownTo(string(name), 1)
}

// addUnknownTo counts a name that is new, as long as there is room for it.
func (t *tally) addUnknownTo(name string, n int64) {
	if t.unknown[name] == nil && len(t.unknown) >= maxUnknownNames {
		name = OtherKeys
	}
	if t.unknown[name] == nil {
		t.unknown[name] = new(int64)
	}
	*t.unknown[name] += n
}

func (t *tally) add(page *tally) {
	t.items += page.items
	t.foldedKeys += page.foldedKeys
	for c, n := range page.rejects {
		t.rejects[c] += n
	}
	for f, n := range page.unparsed {
		t.unparsed[f] += n
	}
	for name, n := range page.unknown {
		t.addUnknownTo(name, *n)
	}
}

func (t *tally) snapshot() Counts {
	c := Counts{
		Items: t.items, FoldedKeys: t.foldedKeys,
		Rejects: map[Cause]int64{}, Unknown: map[string]int64{}, Unparseable: map[string]int64{},
	}
	for _, cause := range Causes() {
		if n := t.rejects[cause]; n > 0 {
			c.Rejects[cause] = n
		}
	}
	for f, n := range t.unparsed {
		if n > 0 {
			c.Unparseable[fields[f].FeedName] = n
		}
	}
	for name, n := range t.unknown {
		c.Unknown[name] = *n
	}
	return c
}

// PageCounts returns the counts of the page that Each read last.
func (e *Encoder) PageCounts() Counts { return e.page.snapshot() }
