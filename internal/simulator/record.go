package simulator

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
)

// renderer writes records as JSON. It is used by one goroutine at a time and
// taken from a pool, so that a page costs no allocation a record.
type renderer struct {
	values [fieldCount]piece
	arena  []byte // holds the JSON texts of values
	extra  []byte // further members, each with its leading comma
}

// piece is the JSON text of one value, in the renderer's arena, or, if empty,
// the way in which it is absent.
type piece struct {
	from, to int32
	absent   absence
}

func (p piece) isBlank() bool { return p.from == p.to }

// absence is a way of not giving a value.
type absence uint8

const (
	absentAnyhow absence = iota // as the options say
	absentBlank
	absentKey
	absentNull
	absentNA
	absentLowerNA
)

var renderers = sync.Pool{New: func() any { return &renderer{arena: make([]byte, 0, 8<<10)} }}

// release gives the renderer back, unless a giant record has made it grow.
func (r *renderer) release() {
	if cap(r.extra) <= maxPooledBytes {
		renderers.Put(r)
	}
}

// set gives a field a value that is JSON already.
func (r *renderer) set(f fieldIndex, jsonText string) {
	from := len(r.arena)
	r.arena = append(r.arena, jsonText...)
	r.values[f] = piece{from: int32(from), to: int32(len(r.arena))}
}

// text gives a field a plain string that needs no escaping; "" leaves it blank.
func (r *renderer) text(f fieldIndex, s string) {
	if s == "" {
		return
	}
	from := r.open()
	r.arena = append(r.arena, s...)
	r.close(f, from)
}

// open begins a string value in the arena; close ends it.
func (r *renderer) open() int {
	r.arena = append(r.arena, '"')
	return len(r.arena) - 1
}

func (r *renderer) close(f fieldIndex, from int) {
	r.arena = append(r.arena, '"')
	r.values[f] = piece{from: int32(from), to: int32(len(r.arena))}
}

// known gives a field a text of the directory, which has its quotes; `""` and
// nothing leave it blank.
func (r *renderer) known(f fieldIndex, quoted string) {
	if len(quoted) > len(`""`) {
		r.set(f, quoted)
	}
}

func (r *renderer) uuid(f fieldIndex, high, low uint64, version byte) {
	from := r.open()
	r.arena = appendUUID(r.arena, high, low, version)
	r.close(f, from)
}

func (r *renderer) session(f fieldIndex, hash uint64) {
	from := r.open()
	r.arena = appendHex(appendHex(r.arena, hash), mix(hash))
	r.close(f, from)
}

func (r *renderer) time(f fieldIndex, millis int64) {
	from := r.open()
	r.arena = appendMillis(r.arena, millis)
	r.close(f, from)
}

// number writes a number as one, or inside a string.
func (r *renderer) number(f fieldIndex, n int64, quoted bool) {
	from := len(r.arena)
	if quoted {
		r.arena = append(r.arena, '"')
	}
	r.arena = appendInt(r.arena, n)
	if quoted {
		r.arena = append(r.arena, '"')
	}
	r.values[f] = piece{from: int32(from), to: int32(len(r.arena))}
}

// appendRecord writes a record, in its second content if revised.
func (s *Simulator) appendRecord(dst []byte, o *org, e *entry, revised bool) []byte {
	c := o.call(int64(e.minute), int64(e.number))
	hash := legHash(c.hash, int(e.leg))
	kind := poisonTable[e.poison].name
	switch kind {
	case NotObjectText, NotObjectNumber, NotObjectArray:
		return appendNotObject(dst, kind, hash)
	}
	r := renderers.Get().(*renderer)
	defer r.release()
	r.values, r.arena, r.extra = [fieldCount]piece{}, r.arena[:0], r.extra[:0]
	r.fill(o, &c, e, hash)
	d := draws(mix(hash))
	if e.flags&isRevised != 0 && !revised {
		r.unfinished()
	}
	if o.records.MixedTypes {
		r.mixTypes(&c, int(e.leg), &d)
	}
	if d.chance(o.records.NewFieldShare) {
		r.appendNewFields(hash, 1+d.below(3))
	}
	if e.poison != 0 {
		r.spoil(o, kind, hash)
	}
	return r.append(dst, &o.records, &d)
}

// unfinished takes away what only the second content of a revised record has.
// Its releasing party is never Unknown, so the two always differ.
func (r *renderer) unfinished() {
	r.set(fReleasingParty, `"Unknown"`)
	for _, f := range []fieldIndex{fCallOutcomeReason, fCallRecordingResult, fDepartmentID, fFinalLocalSessionID, fFinalRemoteSessionID} {
		r.values[f] = piece{}
	}
}

// append writes the object.
func (r *renderer) append(dst []byte, records *Records, d *draws) []byte {
	keys, first := &keyText[wireKeys], 0
	switch records.Keys {
	case KeysDocumented:
		keys = &keyText[documentedKeys]
	case KeysWild:
		keys, first = &keyText[d.below(int(keyStyles))], d.below(int(fieldCount))
	}
	dst = append(dst, '{')
	begun := len(dst)
	for i := range r.values {
		f := i + first
		if f >= len(r.values) {
			f -= len(r.values)
		}
		value := r.values[f]
		if !value.isBlank() {
			dst = append(append(dst, keys[f]...), r.arena[value.from:value.to]...)
			dst = append(dst, ',')
			continue
		}
		if value.absent == absentAnyhow {
			value.absent = absentBlank
			if records.NullMarks {
				value.absent = anyAbsence(d, fieldTable[f].marks)
			}
		}
		if value.absent != absentKey {
			dst = append(append(dst, keys[f]...), absentText[value.absent]...)
		}
	}
	if len(dst) > begun {
		dst = dst[:len(dst)-1]
	}
	return append(append(dst, r.extra...), '}')
}

var absentText = [...]string{absentBlank: `"",`, absentNull: `null,`, absentNA: `"NA",`, absentLowerNA: `"na",`}

// anyAbsence draws one of the ways that a field knows.
func anyAbsence(d *draws, marks absentMark) absence {
	all := [...]absence{absentBlank, absentKey, absentNull, absentNA, absentLowerNA}
	known := 3
	if marks&upperNA != 0 {
		known++
	}
	if marks&lowerNA != 0 {
		known++
	}
	return all[d.below(known)]
}

// fill gives the fields their usual values.
func (r *renderer) fill(o *org, c *call, e *entry, hash uint64) {
	dir, number := o.directory(), int(e.leg)
	l := &c.shape.legs[number]
	owner, at := dir.ownerOf(o, c, number)
	other := dir.party(o, c, l.other, at)
	d := draws(hash)
	r.fillIdentity(o.idsOf(c, poisonTable[e.poison].name), c, number, hash)
	r.fillTimes(c, number, &d)
	r.fillOwner(dir, owner, at, &d)
	r.fillParties(c, l, owner, other, &d)
	r.fillRouting(c, l, at, other, &d)
	r.fillOutcome(c, l, &d)
	if l.redirected {
		r.fillRedirection(c, l, at, dir, &d)
	}
	r.fillRarities(c, l, &d)
}

func (r *renderer) fillIdentity(ids callIDs, c *call, number int, hash uint64) {
	r.uuid(fReportID, hash, mix(hash), 3)
	if ids.hasCorrelation {
		r.uuid(fCorrelationID, ids.correlation, mix(ids.correlation), 4)
	}
	if ids.hasInteraction {
		r.uuid(fInteractionID, ids.interaction, mix(ids.interaction), 4)
	}
	l := &c.shape.legs[number]
	r.localCallID(fLocalCallID, c, number)
	if l.peer >= 0 {
		r.localCallID(fRemoteCallID, c, int(l.peer))
	}
	if l.redirected {
		r.localCallID(fRelatedCallID, c, 0)
	}
	if c.shape.answered {
		r.callID(fCallID, c.hash, number)
		r.callID(fNetworkCallID, ^c.hash, samePair(number, int(l.peer)))
	}
	local, remote := mix(c.hash^saltSession), mix(c.hash^saltSession^1)
	if l.terminating {
		local, remote = remote, local
	}
	r.session(fLocalSessionID, local)
	r.session(fRemoteSessionID, remote)
	r.session(fFinalLocalSessionID, local)
	r.session(fFinalRemoteSessionID, remote)
}

// samePair is a number that the two records of one leg share.
func samePair(number, peer int) int {
	if peer >= 0 {
		return min(number, peer)
	}
	return number
}

// callIDs are what groups the legs of a call.
type callIDs struct {
	correlation, interaction       uint64
	hasCorrelation, hasInteraction bool
}

// transferShare of the calls belong to the interaction of the call before.
const transferShare = 0.06

// idsOf draws them; the fullest kind of record lacks neither.
func (g *generator) idsOf(c *call, kind Poison) callIDs {
	d := draws(c.hash ^ saltCorrelation)
	ids := callIDs{correlation: d.next(), hasCorrelation: true, hasInteraction: true}
	if d.chance(g.records.BlankCorrelation) && kind != Full {
		ids.hasCorrelation = false
		ids.hasInteraction = !d.chance(0.4)
	}
	ids.interaction = mix(c.hash ^ saltInteraction)
	if c.transferOf != 0 {
		ids.interaction = mix(c.transferOf ^ saltInteraction)
	}
	return ids
}

func (r *renderer) localCallID(f fieldIndex, c *call, number int) {
	h := mix(c.hash ^ uint64(number+1)<<50)
	from := r.open()
	r.arena = appendInt(r.arena, int64(h%9_000_000_000)+1_000_000_000)
	r.arena = append(r.arena, ':')
	r.arena = appendInt(r.arena, int64(h>>60))
	r.close(f, from)
}

func (r *renderer) callID(f fieldIndex, hash uint64, number int) {
	from := r.open()
	r.arena = append(r.arena, "SSE"...)
	r.arena = appendInt(r.arena, int64(mix(hash+uint64(number))>>4))
	r.arena = append(r.arena, "@192.0.2."...)
	r.arena = appendInt(r.arena, int64(hash>>56))
	r.close(f, from)
}

func (r *renderer) fillTimes(c *call, number int, d *draws) {
	start, answer, end := c.legTimes(number)
	r.time(fStartTime, start)
	r.time(fReportTime, end)
	r.time(fReleaseTime, end)
	ring, seconds := end-start, int64(0)
	if answer != 0 {
		r.time(fAnswerTime, answer)
		ring, seconds = answer-start, (end-answer)/1000
	}
	r.number(fDuration, seconds, false)
	r.number(fRingDuration, ring/1000, true)
	hold := int64(0)
	if seconds > 30 && d.chance(0.1) {
		hold = int64(d.between(1, int(seconds/2)))
	}
	r.number(fHoldDuration, hold, false)
	if c.transferOf != 0 && seconds > 0 {
		r.time(fCallTransferTime, answer)
	}
}

func (r *renderer) fillOwner(dir *directory, owner *person, at *site, d *draws) {
	r.known(fOrgUUID, dir.org)
	r.known(fLocation, at.location)
	r.known(fSiteUUID, at.uuid)
	r.known(fSiteMainNumber, at.mainNumber)
	r.text(fSiteTimezone, at.timezone)
	r.known(fUser, owner.name)
	r.known(fUserUUID, owner.uuid)
	r.known(fUserType, owner.userType)
	r.known(fUserNumber, owner.number)
	r.known(fDepartmentID, owner.department)
	r.known(fClientType, owner.clientType)
	r.known(fClientVersion, owner.version)
	r.known(fOSType, owner.os)
	r.known(fModel, owner.model)
	r.known(fDeviceMAC, owner.mac)
	if owner.mac != "" && d.chance(0.03) {
		r.uuid(fDeviceOwnerUUID, d.next(), d.next(), 4)
	}
}

// fillParties writes who called whom: what is near and what is far swaps with
// the direction of the leg.
func (r *renderer) fillParties(c *call, l *leg, owner, other *person, d *draws) {
	near, far := [2]fieldIndex{fCallingNumber, fCallingLineID}, [2]fieldIndex{fCalledNumber, fCalledLineID}
	direction := `"ORIGINATING"`
	if l.terminating {
		near, far, direction = far, near, `"TERMINATING"`
	}
	r.set(fDirection, direction)
	r.known(near[0], owner.number)
	r.known(near[1], owner.name)
	if other != nil {
		r.known(far[0], other.extension)
		r.known(far[1], other.name)
	} else {
		r.outsideNumber(far[0], c)
	}
	if !l.terminating {
		r.values[fDialedDigits] = r.values[far[0]]
		r.known(fCallerIDNumber, owner.number)
		r.known(fExternalCallerIDNumber, owner.number)
	} else {
		r.values[fCallerIDNumber] = r.values[far[0]]
	}
}

// outsideNumber is the same for all legs of a call.
func (r *renderer) outsideNumber(f fieldIndex, c *call) {
	d := draws(c.hash ^ saltRole)
	from := r.open()
	r.arena = append(append(append(r.arena, "+1"...), pick(&d, areaCodes)...), "55501"...)
	r.arena = append(r.arena, byte('0'+d.below(10)), byte('0'+d.below(10)))
	r.close(f, from)
}

func (r *renderer) fillRouting(c *call, l *leg, at *site, other *person, d *draws) {
	r.text(fCallType, c.shape.callType)
	r.text(fWxccConsultMergeStatus, "NA")
	if other != nil {
		return
	}
	r.text(fPstnVendorName, "Cisco Calling Plans")
	r.text(fPstnLegalEntity, "Broadcloud, LLC")
	r.text(fPstnProviderID, "5b1c2f0a-9e3d-4a58-8d14-30a1f7c6be02")
	r.text(fPstnVendorOrgID, "0f6d4b52-6c1e-4f0b-9a57-d2e8c7b1a944")
	if l.terminating {
		r.known(fInboundTrunk, at.trunk)
		if d.chance(0.15) {
			r.text(fCallerReputationScore, "3.5")
			r.text(fCallerReputationServiceResult, "allow")
		}
		return
	}
	r.known(fOutboundTrunk, at.trunk)
	r.known(fRouteGroup, at.routeGroup)
	if d.chance(0.05) {
		r.text(fCallType, "SIP_INTERNATIONAL")
		r.text(fInternationalCountry, pick(d, []string{"NA", "DE", "IN", "JP"}))
	}
}

func (r *renderer) fillOutcome(c *call, l *leg, d *draws) {
	releasing := [2]string{"Local", "Remote"}
	if l.terminating {
		releasing = [2]string{"Remote", "Local"}
	}
	r.text(fReleasingParty, releasing[c.hash&1])
	switch {
	case !c.shape.answered:
		r.text(fAnswered, "false")
		r.text(fAnswerIndicator, "No")
		r.text(fCallOutcome, "Refusal")
		r.text(fCallOutcomeReason, pick(d, []string{"UnassignedNumber", "CallRejected", "SIP480", "Q850102ServerTimeout"}))
	case l.answered:
		r.text(fAnswered, "true")
		r.text(fAnswerIndicator, "Yes")
		r.text(fAnswerReason, "N/A")
		r.text(fCallOutcome, "Success")
		r.text(fCallOutcomeReason, "Normal")
	default:
		r.text(fAnswered, "false")
		r.text(fAnswerIndicator, "No")
		r.text(fCallOutcome, "Success")
		r.text(fCallOutcomeReason, "NoAnswer")
		if l.terminating {
			r.text(fAnsweredElsewhere, "Yes")
		}
	}
}

func (r *renderer) fillRedirection(c *call, l *leg, at *site, dir *directory, d *draws) {
	service, reason := &at.services[huntGroup], "HuntGroup"
	switch c.shape.name {
	case "queue":
		service, reason = &at.services[queue], "CallQueue"
		r.text(fQueueType, "Call Queue")
	case "attendant":
		service, reason = &at.services[attendant], "Deflection"
		r.text(fAutoAttendantKeyPressed, pick(d, []string{"1", "2", "0", "*", "#"}))
	case "voicemail":
		service, reason = &dir.people[int(c.hash%people)], "NoAnswer"
	}
	r.text(fOriginalReason, reason)
	r.text(fRedirectReason, reason)
	if reason != "NoAnswer" {
		r.text(fRelatedReason, reason)
	}
	r.known(fRedirectingNumber, service.number)
	r.known(fRedirectingPartyUUID, service.uuid)
	r.known(fOriginalCalledPartyUUID, service.uuid)
	if l.answered && l.terminating {
		r.text(fAnswerIndicator, "Yes-PostRedirection")
	}
}

// fillRarities fills what is blank in most records.
func (r *renderer) fillRarities(c *call, l *leg, d *draws) {
	kind := d.below(400)
	switch {
	case kind < 20:
		r.text(fCallRecordingPlatformName, "Webex")
		r.text(fCallRecordingResult, "successful")
		r.text(fCallRecordingTrigger, "always")
	case kind < 28:
		r.text(fClientType, "SIP")
		r.text(fSubClientType, "MOBILE_NETWORK")
	case kind < 34:
		r.text(fAuthorizationCode, "00107")
	case kind < 40:
		r.text(fPublicCallingIPAddress, "203.0.113.7")
		r.text(fPublicCalledIPAddress, "198.51.100.23")
	case kind == 40:
		r.text(fCallType, "SIP_EMERGENCY")
		r.text(fElin, "+12025550199")
		r.text(fEmergencyNumberSource, "ELIN Pool")
	case kind == 41:
		r.text(fRecallType, "ParkRecall")
		r.text(fRelatedReason, "CalllPark")
	case kind == 42:
		r.text(fTransferType, "AI Receptionist Deflection By Intent")
		r.text(fTransferTypeContext, "asked for the opening hours")
	case kind == 43:
		r.text(fRouteListCallsOverage, "2")
	case kind == 44:
		r.text(fExternalCustomerID, "partner-4711")
		r.text(fCallerReputationScoreReason, "provider timeout")
	}
	if c.transferOf != 0 && !l.redirected {
		r.callRelation(c)
	}
}

// callRelation links a consultative transfer to the first leg of the call before.
func (r *renderer) callRelation(c *call) {
	before := call{hash: c.transferOf}
	r.localCallID(fTransferRelatedCallID, &before, 0)
	r.text(fRelatedReason, "ConsultativeTransfer")
}

// mixTypes writes values in other forms that mean the same.
func (r *renderer) mixTypes(c *call, number int, d *draws) {
	h := d.next()
	if h&1 != 0 {
		r.quote(fDuration)
	}
	if h&2 != 0 {
		r.quote(fHoldDuration)
	}
	if h&4 != 0 {
		r.values[fRingDuration] = r.unquoted(fRingDuration)
	}
	if h&8 != 0 {
		r.values[fAnswered] = r.unquoted(fAnswered)
	}
	if h&16 != 0 {
		r.values[fSiteTimezone] = r.unquoted(fSiteTimezone)
	}
	if start, _, _ := c.legTimes(number); h&32 != 0 && start%1000 == 0 {
		r.wholeSecond(fStartTime, start)
	}
}

// quote puts a number into a string.
func (r *renderer) quote(f fieldIndex) {
	p, from := r.values[f], r.open()
	r.arena = append(r.arena, r.arena[p.from:p.to]...)
	r.close(f, from)
}

// unquoted is a value without the quotes around it.
func (r *renderer) unquoted(f fieldIndex) piece {
	p := r.values[f]
	return piece{from: p.from + 1, to: p.to - 1}
}

// wholeSecond writes a time without its milliseconds.
func (r *renderer) wholeSecond(f fieldIndex, millis int64) {
	from := r.open()
	r.arena = appendMillis(r.arena, millis)
	r.arena = append(r.arena[:len(r.arena)-len(".000Z")], 'Z')
	r.close(f, from)
}

// appendNewFields adds one to three fields that no document knows.
func (r *renderer) appendNewFields(hash uint64, count int) {
	h := hash
	for _, member := range []string{`,"Sentiment score":-0.`, `,"Media path":{"codec":"opus","hops":[1,2,{"jitter ms":`, `,"Field of tomorrow":"x`}[3-count:] {
		r.extra = append(r.extra, member...)
		r.extra = appendInt(r.extra, int64(h%997)+1)
		switch {
		case strings.HasSuffix(member, ":"):
			r.extra = append(r.extra, `}]}`...)
		case strings.HasSuffix(member, "x"):
			r.extra = append(r.extra, '"')
		}
		h = mix(h)
	}
}

// quoteJSON returns s as JSON text; every third one with its letters beyond
// ASCII escaped, as some servers do.
func quoteJSON(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("marshal a string: " + err.Error()) // cannot fail
	}
	if len(s)%3 != 0 {
		return string(quoted)
	}
	return escapeASCII(string(quoted))
}

// escapeASCII writes every letter beyond ASCII as \u escape.
func escapeASCII(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c < 0x80 {
			b.WriteRune(c)
			continue
		}
		if c > 0xffff {
			return s
		}
		b.WriteString(`\u`)
		b.WriteString(strconv.FormatInt(0x10000+int64(c), 16)[1:])
	}
	return b.String()
}
