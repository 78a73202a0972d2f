package probe

import (
	"fmt"
	"strings"

	"cdrbus/schema"
)

// display is a field's name as documented, or as it came.
func (t *fieldTally) display(folded string) string {
	for _, field := range schema.Fields() {
		if strings.EqualFold(field.FeedName, folded) {
			return field.FeedName
		}
	}
	return folded
}

// items calls each for every record that was read, repeats included.
func (o *Observations) items(each func(*Item)) {
	for _, r := range o.Readings {
		r.items(each)
	}
}

func judgeReportTime(o *Observations) Finding {
	equal, other, most := 0, 0, int64(0)
	o.items(func(item *Item) {
		switch {
		case item.Report == 0 || item.Release == 0:
		case item.Report == item.Release:
			equal++
		default:
			other++
			most = max(most, item.Report-item.Release, item.Release-item.Report)
		}
	})
	counts := []Count{{"records in which both are equal", equal}, {"in which they differ", other}, {"most milliseconds of difference", int(most)}}
	switch {
	case equal+other < enough:
		return cannotTell("Too few records have both.", counts...)
	case other == 0:
		return Finding{"equal", Seen, "Yes, to the millisecond.", counts}
	case equal == 0:
		return Finding{"different", Seen, "No.", counts}
	}
	return Finding{"mostly", Certain, "Not always.", counts}
}

// judgeDuration looks at answered calls, in which the two readings differ.
func judgeDuration(o *Observations) Finding {
	fromAnswer, fromStart, neither := 0, 0, 0
	o.items(func(item *Item) {
		if item.Answer == 0 || item.Start == 0 || item.Release == 0 || item.Duration <= 0 || item.Answer-item.Start < 3000 {
			return
		}
		switch {
		case near(item.Release-item.Answer, item.Duration):
			fromAnswer++
		case near(item.Release-item.Start, item.Duration):
			fromStart++
		default:
			neither++
		}
	})
	counts := []Count{{"answered calls that fit the time from the answer", fromAnswer}, {"from the start", fromStart}, {"neither", neither}}
	all := fromAnswer + fromStart + neither
	switch {
	case all < enough:
		return cannotTell("Too few answered calls came.", counts...)
	case fromAnswer*20 >= all*19:
		return Finding{"answer", Seen, "From the answer.", counts}
	case fromStart*20 >= all*19:
		return Finding{"start", Seen, "From the start.", counts}
	}
	return Finding{"neither", Seen, "Neither fits all calls.", counts}
}

func near(millis, seconds int64) bool { return millis/1000-seconds <= 1 && seconds-millis/1000 <= 1 }

func judgeReportID(o *Observations) Finding {
	t := &o.Fields
	counts := []Count{{"records that are no object", t.notObjects}, {"records without a Report ID", t.withoutID}, {"IDs that are no UUID", t.otherIDs}}
	versions, uuids := "", 0
	for version, n := range t.versions {
		if n > 0 {
			counts = append(counts, Count{fmt.Sprintf("UUIDs of version %d", version), n})
			versions += fmt.Sprintf(" version %d,", version)
			uuids += n
		}
	}
	if t.records == 0 {
		return cannotTell("No record came.", counts...)
	}
	if t.withoutID+t.otherIDs == 0 {
		return Finding{"uuid", Seen, "All are UUIDs:" + strings.TrimSuffix(versions, ",") + "; none is blank.", counts}
	}
	blank := "some are blank"
	if t.withoutID == 0 {
		blank = "none is blank"
	}
	return Finding{"other", Certain, fmt.Sprintf("%d UUIDs, %d others; %s.", uuids, t.otherIDs, blank), counts}
}

func judgeTypes(o *Observations) Finding {
	if o.Fields.records == 0 {
		return cannotTell("No record came.")
	}
	misfits, mixed := 0, 0
	var counts []Count
	for _, field := range o.Fields.known() {
		misfits += field.Misfits
		if field.Misfits > 0 {
			counts = append(counts, Count{"values of " + field.Name + " that do not fit", field.Misfits})
		}
		ways := 0
		for k := range field.Kinds {
			if !k.isBlank() {
				ways++
			}
		}
		if ways > 1 && field.Type != schema.String.String() {
			mixed++
			counts = append(counts, Count{"ways in which " + field.Name + " is written", ways})
		}
	}
	switch {
	case misfits > 0:
		return Finding{"misfits", Certain, fmt.Sprintf("%d values do not.", misfits), counts}
	case mixed > 0:
		return Finding{"mixed", Certain, fmt.Sprintf("They fit, but %d fields are written in more than one way.", mixed), counts}
	}
	return Finding{"fit", Seen, "They do, each field in one way.", counts}
}

func judgeNames(o *Observations) Finding {
	if o.Fields.records == 0 {
		return cannotTell("No record came.")
	}
	drift := 0
	var counts []Count
	for _, field := range o.Fields.known() {
		if len(field.Spellings) > 0 {
			drift++
			counts = append(counts, Count{"other spellings of " + field.Name, len(field.Spellings)})
		}
	}
	if drift > 0 {
		return Finding{"drift", Certain, fmt.Sprintf("%d fields are written in another case.", drift), counts}
	}
	return Finding{"documented", Seen, "Yes.", counts}
}

func judgeNewFields(o *Observations) Finding {
	if o.Fields.records == 0 {
		return cannotTell("No record came.")
	}
	var counts []Count
	for _, field := range o.Fields.unknown() {
		counts = append(counts, Count{"records with " + field.Name, max(o.Fields.records-field.Absent, 0)})
	}
	if len(counts) == 0 {
		return Finding{"none", Seen, "None came.", nil}
	}
	return Finding{"some", Certain, fmt.Sprintf("%d. Please report their names and types.", len(counts)), counts}
}

func judgeUnused(o *Observations) Finding {
	if o.Fields.records < enough {
		return cannotTell("Too few records came.")
	}
	var unused []string
	for _, field := range o.Fields.known() {
		filled := 0
		for k, n := range field.Kinds {
			if !k.isBlank() {
				filled += n
			}
		}
		if filled == 0 {
			unused = append(unused, field.Name)
		}
	}
	counts := []Count{{"fields without a value", len(unused)}, {"records", o.Fields.records}}
	if len(unused) == 0 {
		return Finding{"none", Seen, "All held a value at some time.", counts}
	}
	return Finding{"some", Seen, strings.Join(unused, ", ") + ".", counts}
}
