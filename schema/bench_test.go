package schema

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// benchRecord returns an item as large and as blank as the ones on the wire:
// about 3 kB, 87 keys, the case of some of them drifted.
func benchRecord(n int) string {
	values := map[string]string{
		"Answer time": `"2026-10-05T08:14:16.940Z"`, "Answered": `"true"`, "Call ID": `"SSE1101163211405201218829100@10.177.4.29"`,
		"Call type": `"SIP_ENTERPRISE"`, "Called line ID": `"NA"`, "Called number": `"2002"`, "Calling line ID": `"Müller, Anna"`,
		"Calling number": `"+12025550143"`, "Client type": `"WXC_CLIENT"`, "Client version": `"1.0.2.3"`,
		"Correlation ID": fmt.Sprintf(`"8e8e1dc7-4f25-4595-b9c7-%012x"`, n/2), "Department ID": `"4370c763-81ec-403b-aba3-626a7b1cf264"`,
		"Dialed digits": `"1246"`, "Direction": `"ORIGINATING"`, "Duration": `36`, "Hold Duration": `0`, "Ring duration": `"14"`,
		"Site timezone": `"-240"`, "Location": `"Richardson"`, "Org UUID": `"408806bc-a013-4a4b-9a24-85e374912102"`, "OS type": `"na"`,
		"Report ID": fmt.Sprintf(`"0a0c2eb7-f1f6-3326-86f9-%012x"`, n), "Report time": `"2026-10-05T08:14:31.208Z"`,
		"Release time": `"2026-10-05T08:14:31.208Z"`, "Start time": `"2026-10-05T08:14:16.545Z"`, "Site UUID": `"474d4f70-4ef5-4d52-9e1d-b207086629e0"`,
		"User type": `"User"`, "User UUID": `"47f0d0c2-f05a-44cc-870d-7a3daf859c6c"`, "User": `"Ann Example"`, "User number": `"+12025550199"`,
		"Local call ID": `"2340586843:0A"`, "Remote call ID": `"2340586847:0A"`, "Interaction ID": `"8e8e1dc7-4f25-4595-b9c7-26237f824535"`,
		"Local SessionID": `"f2d1a0c900105000a0006c710d8abc10"`, "Remote SessionID": `"00000000000000000000000000000000"`,
		"Final local SessionID": `"f2d1a0c900105000a0006c710d8abc10"`, "Final remote SessionID": `"11110000000000000000000000000000"`,
		"Call outcome": `"Success"`, "Call outcome reason": `"Normal"`, "WxCC consult merge status": `"NA"`,
		"PSTN Vendor Org ID": `"408806bc-a013-4a4b-9a24-85e374912102"`, "PSTN Provider ID": `"408806bc-a013-4a4b-9a24-85e374912102"`,
		"Network call ID": `"SSE1101163211405201218829100@10.177.4.29"`, "Answer indicator": `"Yes"`, "Releasing party": `"Remote"`,
	}
	var b strings.Builder
	for f := range fields {
		name := fields[f].FeedName
		value, ok := values[name]
		if !ok {
			value = `""`
		}
		if name == "Hold Duration" || strings.HasPrefix(name, "PSTN ") {
			name = name[:5] + strings.ToLower(name[5:])
		}
		fmt.Fprintf(&b, ",%q:%s", name, value)
	}
	return "{" + b.String()[1:] + "}"
}

func benchPage(records int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"items":[`)
	for n := range records {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(benchRecord(n))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// BenchmarkItemToEvent is the way of a record from the page to its Kafka value.
func BenchmarkItemToEvent(b *testing.B) {
	const records = 500
	page := benchPage(records)
	enc := NewEncoder(EncoderOptions{SchemaID: 1})
	bytesOut := 0
	emit := func(item *Item) error {
		bytesOut += len(item.Value)
		return nil
	}
	if err := enc.Each(page, emit); err != nil {
		b.Fatal(err)
	}
	perRecord := bytesOut / records
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := enc.Each(page, emit); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records), "ns/record")
	b.ReportMetric(float64(len(page)/records), "JSON-bytes/record")
	b.ReportMetric(float64(perRecord), "event-bytes/record")
}

// BenchmarkEventDecode is the way back, as tail and verify go it.
func BenchmarkEventDecode(b *testing.B) {
	value := encodeOne(b, benchRecord(1))
	b.ReportAllocs()
	for range b.N {
		if _, err := Decode(value); err != nil {
			b.Fatal(err)
		}
	}
}
