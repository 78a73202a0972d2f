package probe

// Question is one thing that the documents of the feed leave open.
type Question struct {
	Name string `json:"name"`
	Asks string `json:"asks"`
	// Today is what cdrbus does, whichever answer is right.
	Today string `json:"today"`

	judge func(*Observations) Finding
}

// harms are the verdicts with which cdrbus, configured as it is, cannot prove that
// nothing is missing, by question.
var harms = map[string][]string{
	"lookback":    {"refused"},
	"total_count": {totalRemaining, totalWrong},
	"start_bound": {"exclusive"},
}

// Sureness is how far a finding can be relied on.
type Sureness string

const (
	// Certain: the observations exclude every other answer.
	Certain Sureness = "certain"
	// Seen: all that was seen agrees, but something else could come another time.
	Seen Sureness = "seen"
	// CannotTell: the observations allow several answers, or there are none.
	CannotTell Sureness = "cannot tell"
)

// Finding is what became known of a question.
type Finding struct {
	// Verdict is the answer in a word; "": cannot tell.
	Verdict string   `json:"verdict"`
	Sure    Sureness `json:"sure"`
	// Says is the answer in a sentence, or why there is none.
	Says string `json:"says"`
	// Counts are what it rests on.
	Counts []Count `json:"counts,omitempty"`
}

// Count is one figure of evidence.
type Count struct {
	What  string `json:"what"`
	Value int    `json:"value"`
}

func cannotTell(why string, counts ...Count) Finding {
	return Finding{Sure: CannotTell, Says: why, Counts: counts}
}

// Questions are all that a probe asks, in the order of the report.
var Questions = []Question{
	{"selects_by", "By which time does a window of cdr_feed pick records: end, start or creation of the call's record?",
		"A live window begins an overlap before the last one's end, and sweeps read again up to 48 h back. No record is dropped for its times, so any answer is right; by start of call, the widest sweep must be longer than the longest call.", judgeSelection},
	{"start_bound", "Does a window hold the records of the second in which it begins?",
		"Windows are half-open: the second of the start belongs to the window. If it did not, the overlap (1m) would bring its records.", judgeStartBound},
	{"end_bound", "Does a window hold the records of the second in which it ends?",
		"The second of the end is left to the next window. If both hold it, its records come twice and are left out by their Report IDs.", judgeEndBound},
	{"order", "Are the records of a page in order of a time?",
		"No order is relied on. Events of one key keep the feed's order within a window.", judgeOrder},
	{"edge_repeats", "Do records come again at the beginning of the next page?",
		"They are left out by their Report IDs.", judgeRepeats},
	{"doubles", "Does a record come twice on one page?",
		"It is published once.", judgeDoubles},
	{"page_cursor", "How fine is the time from which the next page goes on?",
		"A cursor that does not move is met by the largest page, and then recorded as a gap. More records in one such step than fit on a page cannot be fetched.", judgeCursor},
	{"link_form", "How is the next link written: in one bracket, or in two?",
		"Both are read. A Link header that is neither ends the window without advancing.", judgeLinkForm},
	{"total_count", "What is totalCount: what the window holds, or what remains? Is it right, and the same on all pages?",
		"The first page's is compared with the distinct records that came. Fewer records: asked again twice, then committed as unproven. A total that counts something else, or is wrong, makes every window of several pages unproven.", judgeTotal},
	{"max_small", "What does the feed make of a max below its least?",
		"cdrbus asks for 500 to 5000, and believes the page.", judgeFloor},
	{"max_large", "Does the feed give 5000 records on a page?",
		"With page_size: 0, 5000 is asked for, and 500 where that is refused.", judgeCeiling},
	{"empty_feed", "How does cdr_feed answer a window without records?",
		"404 with \"No CDRs\", 200 without items and 204 all count as empty; a 204 as unproven.", judgeEmptyFeed},
	{"empty_stream", "How does cdr_stream answer a window without records?",
		"As on cdr_feed.", judgeEmptyStream},
	{"lookback", "Does cdr_feed answer as far back as lookback says?",
		"lookback (720h) decides what counts as a gap, and where start: earliest begins. A shorter one in truth shows as empty windows, which are unproven.", judgeLookback},
	{"too_wide", "What becomes of a window that is too wide: refused, or trimmed without a word?",
		"cdrbus never asks for more than 12h, whatever max_window says.", judgeTooWide},
	{"too_old", "What becomes of a window that is too old: refused, or trimmed without a word?",
		"What is older than lookback is a gap and is not asked for.", judgeTooOld},
	{"retry_after", "Does a 429 say how long to wait?",
		"Seconds and dates are obeyed, up to 15m; without them a minute is waited.", judgeRetryAfter},
	{"shared_bucket", "Do cdr_feed and cdr_stream share one bucket of requests?",
		"cdrbus counts both from one budget, the stricter reading.", judgeBucket},
	{"date", "Does every answer carry a Date, and how far is its clock from ours?",
		"A window counts if the server's Date is min_age beyond its end; without Date, by the local clock and 30s more.", judgeDate},
	{"gzip", "Are pages compressed for those who ask?",
		"gzip is asked for; both are read.", judgeGzip},
	{"late", "How many records appear after a window was old enough, and how late?",
		"Sweeps read again: by default every 15m the last 2h and every 12h the last 48h. What is new is published with the header late.", judgeLate},
	{"revised", "Does a record's content change while its Report ID stays?",
		"The new content is published too, with the header revision; consumers keep the last.", judgeRevised},
	{"report_time", "Is Report time the same as Release time?",
		"Report time is ce_time, and the time of coverage. Nothing relies on it being the release.", judgeReportTime},
	{"duration", "Does Duration count from the start of the call, or from its answer?",
		"It is published as it comes.", judgeDuration},
	{"report_id", "What does a Report ID look like, and is it ever blank?",
		"UUIDs are kept as they are, other IDs as a hash of 128 bits. A record without one becomes a dead letter.", judgeReportID},
	{"field_types", "Do the values of the documented fields fit their types?",
		"Numbers and booleans are read inside strings and outside. What does not fit becomes null, and is kept in unmapped.", judgeTypes},
	{"field_names", "Are the documented fields written as documented?",
		"Names match in any case.", judgeNames},
	{"new_fields", "Are there fields that cdrbus does not know?",
		"They are kept in unmapped, as JSON text.", judgeNewFields},
	{"unused_fields", "Which documented fields never hold a value here?",
		"They are null.", judgeUnused},
	{"one_instant", "How many records share one instant at most?",
		"Up to a page's worth of them can be fetched.", judgeInstant},
	{"link_lifetime", "How long does a next link live?",
		"A link that is refused begins the window again from its first page.", judgeLifetime},
}
