package mutants

// mutants is the table. The first ones are for the simulation: a whole daemon
// that breaks the rule, in worlds full of faults.
var mutants = []mutant{
	{
		name: "no new epoch between transactions",
		edits: []edit{
			{"producer/steps.go", "if s.state != spent || !s.transactional() {\n\t\treturn nil\n\t}\n\tfailure", "if true {\n\t\treturn nil\n\t}\n\tfailure"},
			{"producer/steps.go", "\tif !s.transactional() {\n\t\trounds.countInto", "\tif true {\n\t\trounds.countInto"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "restored before the take-over",
		edits: []edit{
			{"internal/daemon/shard.go", `	if s.producer, err = producer.TakeOver(ctx, d.client, d.shardOptions(index)); err != nil {
		return d.firstTime(index, err)
	}
	if err := s.restore(ctx); err != nil {
		return err
	}
`, `	if s.restored, err = offsets.Restore(ctx, d.reader, d.restoreOptions(index)); err != nil {
		return d.firstTime(index, err)
	}
	if s.producer, err = producer.TakeOver(ctx, d.client, d.shardOptions(index)); err != nil {
		return d.firstTime(index, err)
	}
`},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "unknown taken for not committed, nothing restored",
		edits: []edit{
			{"internal/daemon/commit.go", `	restored, err := offsets.ReadPositions(ctx, s.daemon.reader, s.restored)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	lived, err := s.committedIn(restored, batch)
`, `	restored, lived, err := s.restored, []*window(nil), error(nil)
`},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "IDs adopted when encoded",
		edits: []edit{
			{"offsets/seen.go", "\t\ts.pendings[last].undo()\n", ""},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "aborted records read",
		edits: []edit{
			{"internal/committed/filter.go", "return b.transactional && !b.control && f.open[b.producerID]", "return false"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "INVALID_TXN_STATE taken for committed",
		edits: []edit{
			{"producer/errors.go", "on(AddPartitions, Produce, CommitTransaction), abortable", "on(AddPartitions, Produce), abortable"},
			{"producer/errors.go", "{kafka.InvalidTransactionState, on(AbortTransaction), done", "{kafka.InvalidTransactionState, on(AbortTransaction, CommitTransaction), done"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a repeat has a new sequence",
		edits: []edit{
			{"producer/steps.go", "import (\n", "import (\n\t\"encoding/binary\"\n\t\"hash/crc32\"\n"},
			{"producer/steps.go", "\t\tif failure := s.until(ctx, Produce, func(ctx context.Context) *Failure {\n", `		tries := 0
		if failure := s.until(ctx, Produce, func(ctx context.Context) *Failure {
			if tries++; tries > 1 {
				for _, b := range r.batches {
					sequence := b.wire[4+53:]
					binary.BigEndian.PutUint32(sequence, binary.BigEndian.Uint32(sequence)+uint32(b.records))
					binary.BigEndian.PutUint32(b.wire[4+17:], crc32.Checksum(b.wire[4+21:], crc32.MakeTable(crc32.Castagnoli)))
				}
			}
`},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "the position in a transaction of its own, before the events",
		edits: []edit{
			{"producer/shard.go", "\tbegan := time.Now()\n\tsending, cancel", `	if last := len(c.slots) - 1; last > 0 && c.slots[last].topic == Positions {
		position, rest := *c, *c
		position.slots, rest.slots = c.slots[last:], c.slots[:last]
		result := s.Commit(ctx, &position)
		if _, ok := result.(Committed); !ok {
			return result
		}
		c = &rest
	}
	began := time.Now()
	sending, cancel`},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a log at odds with itself is believed",
		edits: []edit{
			{"internal/daemon/shard.go", "err := s.producer.Prove(ctx)", "err := error(nil)"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "no answer to a Produce taken for written",
		edits: []edit{
			{"producer/wire.go", "\tif err != nil {\n\t\treturn unanswered(Produce, w.nameOf(group[0].place).String(), err)\n\t}", `	if err != nil {
		for _, b := range group {
			b.acked = true
		}
		return nil
	}`},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a window kept whose predecessor left no trace",
		edits: []edit{
			{"internal/daemon/lane.go", "if err != nil || !kept {\n\t\t\tw.release()", "if err != nil {\n\t\t\tw.release()"},
			{"internal/daemon/lane.go", "\t\tif !kept {\n\t\t\tcontinue\n\t\t}\n", "\t\t_ = kept\n"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},

	// Rules that the unit tests guard.
	{
		name: "a fenced owner goes on",
		edits: []edit{
			{"producer/shard.go", "if failure.class == fenced {", "if false {"},
		},
		guard: producer, run: "TestFaultGrid|TestRecoverStealsNothing",
	},
	{
		name: "an epoch asked for before the abort",
		edits: []edit{
			{"producer/shard.go", "\tif failure := s.abortTransaction(ctx); failure != nil {\n\t\treturn s.surrender(failure)\n\t}\n\n\t// 2.", "\n\t// 2."},
		},
		guard: producer, run: "TestFaultGrid|TestRecover",
	},
	{
		name: "any epoch taken for the next",
		edits: []edit{
			{"producer/steps.go", "s.own != want {", "false {"},
		},
		guard: producer, run: "TestOtherEpochs|TestStorm",
	},
	{
		name: "no answer to a commit taken for committed",
		edits: []edit{
			{"producer/wire.go", "\t\tfailure = unanswered(how, w.subject(), err)\n", "\t\tfailure = nil\n"},
		},
		guard: producer, run: "TestFaultGrid|TestCrashGrid|TestStorm",
	},
	{
		name: "a partition that the answer leaves out taken for added",
		edits: []edit{
			{"producer/wire.go", "failure = worse(failure, unanswered(AddPartitions, name.String(), errPartialAnswer))", "failure = worse(failure, nil)"},
		},
		guard: producer, run: "TestPartialAnswers",
	},
	{
		name: "a batch that the answer leaves out taken for written",
		edits: []edit{
			{"producer/wire.go", "\t\t\tfailure = worse(failure, unanswered(Produce, name.String(), errPartialAnswer))\n\t\t\tcontinue\n", "\t\t\tb.acked = true\n\t\t\tcontinue\n"},
		},
		guard: producer, run: "TestPartialAnswers",
	},
	{
		name: "an unknown code taken for success",
		edits: []edit{
			{"producer/errors.go", "return rule{code, on(request), abortable, blame,", "return rule{code, on(request), done, blame,"},
		},
		guard: producer, run: "TestEveryCodeAtEveryRequest|TestFaultGrid",
	},
	{
		name: "the position not in the last round",
		edits: []edit{
			{"producer/commit.go", "\t\tif s.topic.stage() > barrier {\n\t\t\tbreak\n\t\t}\n", "\t\t_ = barrier\n"},
		},
		guard: producer, run: "TestRounds|TestFaultGrid",
	},
	{
		name: "bytes used again that may still be read",
		edits: []edit{
			{"producer/commit.go", "if before != nil && before.unanswered {", "if false {"},
		},
		guard: producer, run: "TestRoundsLeaveUnansweredBytesAlone|TestBytesStayUntilAnswered",
	},
	{
		name: "a transaction left open at shutdown",
		edits: []edit{
			{"producer/shard.go", "if s.state != broken || ctx.Err() == nil ||", "if true || s.state != broken || ctx.Err() == nil ||"},
		},
		guard: producer, run: "TestShutdown",
	},
	{
		name: "the answer to a commit not waited for at shutdown",
		edits: []edit{
			{"producer/steps.go", "ctx, cancel := outlive(ctx, s.options.ShutdownGrace)", "ctx, cancel := outlive(ctx, 0)"},
		},
		guard: producer, run: "TestShutdown",
	},
	{
		name: "windows need not follow one another",
		edits: []edit{
			{"internal/daemon/commit.go", "if !w.follows(before) {", "if false {"},
		},
		guard: daemon, run: "TestCloseDemandsContiguity",
	},
	{
		name: "aborted transactions noticed at data alone",
		edits: []edit{
			{"internal/committed/filter.go", "for len(f.pending) > 0 && f.pending[0]", "for !b.control && len(f.pending) > 0 && f.pending[0]"},
		},
		guard: "./internal/committed", run: "TestReadAfterAbortedDataWasCompactedAway|TestReadAgreesWithModel",
	},
	{
		name: "a restore content with an open transaction",
		edits: []edit{
			{"offsets/offsets.go", "if bounds.LastStable != bounds.HighWatermark {", "if false {"},
		},
		guard: "./offsets", run: "TestRestore",
	},
	{
		name: "a counter that comes again accepted",
		edits: []edit{
			{"offsets/restore.go", "case c.valid && p.Counter <= c.counter:", "case false:"},
		},
		guard: "./offsets", run: "TestRestoreRefuses",
	},
	{
		name: "another writer of the offsets topic overlooked",
		edits: []edit{
			{"internal/daemon/commit.go", "case first == want || first == producer.UnknownOffset || want == producer.UnknownOffset:", "case first >= 0 || want >= 0:"},
		},
		guard: daemon, run: "^TestStrangerInTheOffsetsTopic$",
	},
	{
		name: "a position believed without its receipt",
		edits: []edit{
			{"offsets/vouch.go", "		s.Refused = r.options.refuseUnvouched(s)\n", "		continue\n"},
		},
		guard: "./offsets", run: "^TestPositionsNeedTheirReceipt$",
	},
	{
		name: "a shard taken back without a proof",
		edits: []edit{
			{"internal/daemon/shard.go", "err := d.proven(ctx, lease)", "err := ctx.Err()"},
		},
		guard: daemon, run: "^TestOutcastTakesNothingBack$",
	},
	{
		name: "a take-over as impatient as a transaction",
		edits: []edit{
			{"producer/shard.go", "max(options.TransactionTimeout, leastTakeOverPatience)", "options.TransactionTimeout"},
		},
		guard: producer, run: "^TestTakeOverOutlivesAStandingBroker$",
	},
	{
		name: "tokens on their way lost at the end",
		edits: []edit{
			{"internal/daemon/commit.go", "\t\t\ts.commitLastNotes(ctx)\n", ""},
		},
		guard: daemon, run: "^TestTokensUnderWayAtTheEnd$",
	},
	{
		name: "settled when it is read, however young it was",
		edits: []edit{
			{"internal/daemon/source.go", "min(read.EndExclusive, late, after.FeedPublished)", "max(read.EndExclusive, 0*late)"},
		},
		guard: daemon, run: "^TestSettledIsWhatWasReadLateEnough$",
	},
	{
		name: "settled behind a hole",
		edits: []edit{
			{"internal/daemon/source.go", "begins <= sweepable {", "begins > 0 {"},
		},
		guard: daemon, run: "^TestSettledIsWhatWasReadLateEnough$",
	},
	{
		name: "the widest sweep begins where it says, whatever is not settled",
		edits: []edit{
			{"poller/sweep.go", "from = min(from, s.Settled)", "from = min(from, s.Edge)"},
		},
		guard: "./poller", run: "^TestSweepRounds$",
	},
	{
		name: "the narrowest sweep begins where it says, whatever the feed was not read for",
		edits: []edit{
			{"poller/sweep.go", "from = min(from, s.Published)", "from = min(from, from)"},
		},
		guard: "./poller", run: "^TestSweepBounds$",
	},
	{
		name: "sweeps and jobs wait until the live edge has nothing to do",
		edits: []edit{
			{"internal/daemon/turns.go", "const GuaranteedShare = 0.2", "const GuaranteedShare = 0"},
		},
		guard: daemon, run: "^TestTurns$",
	},
	{
		name: "records dropped for their times",
		edits: []edit{
			{"internal/daemon/window.go", "	late := w.late(item) && !revised\n", "	late := w.late(item) && !revised\n	if late {\n		w.facts.known++\n		return nil\n	}\n"},
		},
		guard: daemon, run: "^TestLateRecords$/^auto,_outage$",
	},
	{
		name: "the feed goes on where the stream was",
		edits: []edit{
			{"internal/daemon/source.go", "		s.streaming = false\n	}\n	if !s.streaming {", "		s.streaming, s.plan.Published = false, max(s.plan.Published, s.stream.Published)\n	}\n	if !s.streaming {"},
		},
		guard: daemon, run: "^TestLateRecords$/^auto,_outage$",
	},
	{
		name: "windows from before the set checked against what it has",
		edits: []edit{
			{"offsets/seen.go", "return span.StartInclusive.Add(-edgeMargin) >= s.reach || ", "return true || "},
		},
		guard: daemon, run: "^TestBackfill$",
	},
	{
		name: "loaded IDs forgotten under a window that needs them",
		edits: []edit{
			{"offsets/seen.go", "pinned := !s.pinned.IsZero() && g.endExclusive.Add(edgeMargin) > s.pinned.StartInclusive", "pinned := false && !s.pinned.IsZero()"},
		},
		guard: "./offsets", run: "^TestJournalIndex$",
	},
	{
		name: "what the stream published looked for by its spans",
		edits: []edit{
			{"offsets/journalindex.go", "	if !c.ByInsertion {\n", "	if true {\n"},
		},
		guard: "./offsets", run: "^TestJournalIndex$",
	},
	{
		name: "a record at the edge of two windows looked for in one",
		edits: []edit{
			{"offsets/journalindex.go", "c.Span.EndExclusive.Add(edgeMargin)}", "c.Span.EndExclusive}"},
		},
		guard: "./offsets", run: "^TestJournalIndex$",
	},
	{
		name: "the state of a job not in its window's transaction",
		edits: []edit{
			{"internal/daemon/commit.go", "	if w.work() == errands {\n", "	if false {\n"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a job goes on with what was known before the shard was lost",
		edits: []edit{
			{"internal/daemon/lane.go", "		s.dropErrands()\n", "		_ = s.dropErrands\n"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a job that has ended begun again",
		edits: []edit{
			{"internal/daemon/jobs.go", "offsets.Mend || s.jobEnded(job.ID) ||", "offsets.Mend ||"},
			{"internal/daemon/errand.go", "case known && state.Phase.Ended(), s.hasErrand(job.ID):", "case s.hasErrand(job.ID):"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a backfill begins at the beginning, however far it was",
		edits: []edit{
			{"internal/daemon/errand.go", "	state.Owner = l.daemon.name()\n", "	state.Owner, state.Next = l.daemon.name(), job.Span.StartInclusive\n"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "a backfill checked against an empty set",
		edits: []edit{
			{"offsets/journalindex.go", "		s.loadPinned(c, record.Timestamp)\n", "		_ = c\n"},
		},
		guard: daemon, run: "^TestBackfillsOfOneSpan$",
	},
	{
		name: "the ID journal as it was when the job began",
		edits: []edit{
			{"internal/daemon/errand.go", "	err := index.Extend(ctx, l.daemon.reader)\n", "	err := error(nil)\n"},
		},
		guard: daemon, run: "^TestBackfillBesideTheStream$",
	},
	{
		name: "a repair publishes what the topic has",
		edits: []edit{
			{"internal/daemon/window.go", "w.verify.lacks(item, w.request.Span.StartInclusive) && !w.repaired[item.ID]", "(w.verify.lacks(item, w.request.Span.StartInclusive) || true) && !w.repaired[item.ID]"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "what a repair publishes again not counted as returned",
		edits: []edit{
			{"internal/daemon/window.go", "			w.known = append(w.known, item.ID)\n			seen", "			seen"},
		},
		guard: daemon, run: "^TestVerifyWhileSweepsPublish$",
	},
	{
		name: "a part of a verification concluded before the feed is read beyond it",
		edits: []edit{
			{"internal/daemon/verify.go", "v.parts[0].span.EndExclusive.Add(verifyMargin) <= next", "v.parts[0].span.EndExclusive <= next"},
		},
		guard: daemon, run: "^TestVerificationConcludes$",
	},
	{
		name: "what was published during a verification taken for unexpected",
		edits: []edit{
			{"internal/daemon/topictable.go", "t.later[e.id] = &e", "t.buckets[e.id[0]] = append(t.buckets[e.id[0]], e)"},
		},
		guard: daemon, run: "^TestVerificationConcludes$",
	},
	{
		name: "a verification goes on without what it had found",
		edits: []edit{
			{"offsets/job.go", "	return c.Until, findings, c.SkippedSeconds\n", "	return c.Until, Findings{}, c.SkippedSeconds\n"},
		},
		guard: daemon, run: "^TestVerifyInParts$",
	},
	{
		name: "the topic not read again before each window of a verification",
		edits: []edit{
			{"internal/daemon/errand.go", "if err := e.verify.catchUp(ctx, from); err != nil {", "if err := error(nil); err != nil {"},
		},
		guard: daemon, run: "^TestVerifyWhileSweepsPublish$",
	},
	{
		name: "what lies behind an open transaction taken for missing",
		edits: []edit{
			{"internal/committed/stable.go", "bounds.LastStable < reached;", "false;"},
		},
		guard: daemon, run: "^TestVerifyBehindAnOpenTransaction$",
	},
	{
		name: "the ID journal read up to what readers see just now",
		edits: []edit{
			{"offsets/journalindex.go", "committed.AwaitStable(ctx, r, x.topic, x.partition)", "r.Bounds(ctx, x.topic, x.partition)"},
		},
		guard: "./offsets", run: "^TestJournalIndexReadsToTheEnd$",
	},
	{
		name: "the end of an edit not in its position's transaction",
		edits: []edit{
			{"internal/positions/apply.go", "	if err := addState(draft, state); err != nil {\n		return err\n	}\n	if err := e.addPosition", "	if err := e.addPosition"},
		},
		guard: daemon, run: "^TestReset$",
	},
	{
		name: "a position edited, and the former one kept in mind",
		edits: []edit{
			{"internal/daemon/edits.go", "	return s.restore(ctx)\n", "	return nil\n"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "the feed's shortfalls forgotten with any window",
		edits: []edit{
			{"internal/daemon/source.go", "delete(tries.shortfalls, w.request.Span.StartInclusive)", "tries.shortfalls = nil"},
		},
		guard: daemon, run: "^TestShortfallsOfTwoRounds$",
	},
	{
		name: "no overlap where auto goes back to the stream",
		edits: []edit{
			{"poller/auto.go", "return published.Add(-streamOverlap)", "return published"},
		},
		guard: "./poller", run: "^TestSeams$",
	},
	{
		name: "auto goes on with the stream where the feed was read by its own time",
		edits: []edit{
			{"internal/daemon/source.go", "max(s.stream.Published, poller.StreamFrom(s.plan.Published), s.position.Start)", "max(s.stream.Published, cdr.InstantOf(time.Now()))"},
		},
		guard: daemon, run: simulation, flags: seeds,
	},
	{
		name: "what cdr_feed published kept by its own time where cdr_stream is read",
		edits: []edit{
			{"offsets/seen.go", "max(w.Span.EndExclusive, w.AsOf)", "max(w.Span.EndExclusive, 0*w.AsOf)"},
		},
		guard: "./offsets", run: "^TestJournalIndex$",
	},
	{
		name: "the clock of a request that hung",
		edits: []edit{
			{"poller/clock.go", "out.Requests == 0 || out.SkewError > margin {", "out.Requests == 0 {"},
		},
		guard: "./poller", run: "^TestClockOfASlowRequest$",
	},
	{
		name: "a second given up forgotten for another",
		edits: []edit{
			{"poller/plan.go", "	s.giveUp(stuck.At)\n", "	s.GivenUp = nil\n	s.giveUp(stuck.At)\n"},
		},
		guard: "./poller", run: "^TestSpanBeyondStuckSeconds$",
	},
	{
		name: "a round of a sweep goes on although what is left of it is given up",
		edits: []edit{
			{"poller/sweep.go", "s.BeginsAt(max(round.Next, s.oldestStart(now))) < round.End", "s.oldestStart(now) < round.End"},
		},
		guard: "./poller", run: "^TestSweepBeyondStuckSeconds$",
	},
	{
		name: "settled stays before a second that is given up",
		edits: []edit{
			{"internal/daemon/source.go", "		begins = follows\n", "		_ = follows\n"},
		},
		guard: daemon, run: "^TestStuckSeconds$",
	},
	{
		name: "nobody tells of a second given up where cdr_stream is the live edge",
		edits: []edit{
			{"internal/daemon/source.go", "begins > s.plan.Published { // only", "begins > s.plan.Published+1 { // only"},
		},
		guard: daemon, run: "^TestStuckSeconds$",
	},
	{
		name: "what was given up never asked for again",
		edits: []edit{
			{"poller/sweep.go", "		s.forgetGivenUp() // the", "		_ = at // the"},
		},
		guard: "./poller", run: "^TestSweepsAskOnceMore$",
	},
	{
		name: "an event measured without its key",
		edits: []edit{
			{"schema/encoder.go", "[]span{r.value, r.key, r.reportID}", "[]span{r.value}"},
		},
		guard: daemon, run: "^TestOversized$",
	},
	{
		name: "what the feed forgot while it could not be reached taken for unexpected",
		edits: []edit{
			{"internal/daemon/errand.go", "			e.verify.skip(cdr.Span{StartInclusive: e.ahead.Next, EndExclusive: span.StartInclusive})\n", ""},
		},
		guard: daemon, run: "^TestJobsOvertakenByTheLookback$",
	},
	{
		name: "a job failed by a clock that was not compared",
		edits: []edit{
			{"internal/daemon/errand.go", "if e.beyondReach(now) && !s.plan.Stale(now) {", "if e.beyondReach(now) {"},
		},
		guard: daemon, run: "^TestJobsOvertakenByTheLookback$",
	},
}

// The packages that guard most, and how their tests are asked for.
const (
	daemon     = "./internal/daemon"
	producer   = "./producer"
	simulation = "^TestSimulation$"
)

// seeds is how many worlds a mutant of the simulation may hide from.
var seeds = []string{"-sim.seeds=200"}
