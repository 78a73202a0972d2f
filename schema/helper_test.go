package schema

import (
	"bytes"
	"io"
	"log"
	"testing"
)

// encodePage returns copies of the items of a page.
func encodePage(tb testing.TB, o EncoderOptions, page string) []Item {
	tb.Helper()
	return eachCopy(tb, NewEncoder(o), page)
}

func eachCopy(tb testing.TB, enc *Encoder, page string) []Item {
	tb.Helper()
	var items []Item
	if err := enc.Each([]byte(page), func(item *Item) error {
		items = append(items, copyItem(item))
		return nil
	}); err != nil {
		tb.Fatalf("encode page: %v", err)
	}
	return items
}

func copyItem(item *Item) Item {
	c := *item
	for _, s := range []*[]byte{&c.ReportID, &c.Key, &c.OrgUUID, &c.Value} {
		*s = bytes.Clone(*s)
	}
	if item.Reject != nil {
		c.Reject = &Reject{Raw: bytes.Clone(item.Reject.Raw), Cause: item.Reject.Cause}
	}
	return c
}

// encodeOne returns the value of a page with one item, which must be an event.
func encodeOne(tb testing.TB, item string) []byte {
	tb.Helper()
	items := encodePage(tb, EncoderOptions{SchemaID: 7}, `{"items":[`+item+`]}`)
	if len(items) != 1 || items[0].Reject != nil {
		tb.Fatalf("item %.200s: got %d items, want one event", item, len(items))
	}
	return items[0].Value
}

// quietLog is for servers whose handshakes are meant to fail.
func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }
