package simulator

import "strings"

// fieldIndex names a field of a record by its place in fieldTable, which is
// also the order in which records are written.
type fieldIndex int

const (
	fAnswerTime fieldIndex = iota
	fAnswered
	fAuthorizationCode
	fCallID
	fCallType
	fCalledLineID
	fCalledNumber
	fCallingLineID
	fCallingNumber
	fClientType
	fClientVersion
	fCorrelationID
	fDepartmentID
	fDeviceMAC
	fDialedDigits
	fDirection
	fDuration
	fInboundTrunk
	fInternationalCountry
	fLocation
	fModel
	fOrgUUID
	fOriginalReason
	fOSType
	fOutboundTrunk
	fRedirectReason
	fRedirectingNumber
	fRelatedReason
	fReleasingParty
	fReportID
	fReportTime
	fRouteGroup
	fSiteMainNumber
	fSiteTimezone
	fSiteUUID
	fStartTime
	fSubClientType
	fTransferRelatedCallID
	fUserType
	fUserUUID
	fAnswerIndicator
	fAnswerReason
	fAnsweredElsewhere
	fAutoAttendantKeyPressed
	fCallOutcome
	fCallOutcomeReason
	fCallRecordingPlatformName
	fCallRecordingResult
	fCallRecordingTrigger
	fCallTransferTime
	fCallerIDNumber
	fCallerReputationScore
	fCallerReputationScoreReason
	fCallerReputationServiceResult
	fDeviceOwnerUUID
	fElin
	fEmergencyNumberSource
	fExternalCallerIDNumber
	fExternalCustomerID
	fFinalLocalSessionID
	fFinalRemoteSessionID
	fHoldDuration
	fInteractionID
	fLocalCallID
	fLocalSessionID
	fNetworkCallID
	fOriginalCalledPartyUUID
	fPstnLegalEntity
	fPstnProviderID
	fPstnVendorName
	fPstnVendorOrgID
	fPublicCalledIPAddress
	fPublicCallingIPAddress
	fQueueType
	fRecallType
	fRedirectingPartyUUID
	fRelatedCallID
	fReleaseTime
	fRemoteCallID
	fRemoteSessionID
	fRingDuration
	fRouteListCallsOverage
	fTransferType
	fTransferTypeContext
	fUser
	fUserNumber
	fWxccConsultMergeStatus
	fieldCount
)

// fieldKind is what a field's value is, however it is written.
type fieldKind uint8

const (
	text fieldKind = iota
	number
	boolean
	instant
)

// absentMark is a set of the texts by which the feed says that a field has no
// value. The empty text, JSON null and a missing key are understood everywhere.
type absentMark uint8

const (
	upperNA absentMark = 1 << iota
	lowerNA
)

// field is one of the documented fields. It is the simulator's own table, on
// purpose: sharing the schema's would let one mistake hide in both.
type field struct {
	name  string // as the documents print it
	wire  string // as the feed sends it, where that differs
	kind  fieldKind
	marks absentMark
}

// onWire returns the name that the live feed sends.
func (f field) onWire() string {
	if f.wire != "" {
		return f.wire
	}
	return f.name
}

var fieldTable = [fieldCount]field{
	fAnswerTime:                    {name: "Answer time", kind: instant, marks: upperNA | lowerNA},
	fAnswered:                      {name: "Answered", kind: boolean, marks: upperNA | lowerNA},
	fAuthorizationCode:             {name: "Authorization code", marks: upperNA | lowerNA},
	fCallID:                        {name: "Call ID", marks: upperNA | lowerNA},
	fCallType:                      {name: "Call type", marks: upperNA | lowerNA},
	fCalledLineID:                  {name: "Called line ID", marks: upperNA},
	fCalledNumber:                  {name: "Called number", marks: upperNA | lowerNA},
	fCallingLineID:                 {name: "Calling line ID", marks: upperNA},
	fCallingNumber:                 {name: "Calling number", marks: upperNA | lowerNA},
	fClientType:                    {name: "Client type", marks: upperNA | lowerNA},
	fClientVersion:                 {name: "Client version", marks: upperNA | lowerNA},
	fCorrelationID:                 {name: "Correlation ID", marks: upperNA | lowerNA},
	fDepartmentID:                  {name: "Department ID", marks: upperNA | lowerNA},
	fDeviceMAC:                     {name: "Device MAC", marks: upperNA | lowerNA},
	fDialedDigits:                  {name: "Dialed digits", marks: upperNA | lowerNA},
	fDirection:                     {name: "Direction", marks: upperNA | lowerNA},
	fDuration:                      {name: "Duration", kind: number, marks: upperNA | lowerNA},
	fInboundTrunk:                  {name: "Inbound trunk"},
	fInternationalCountry:          {name: "International country"},
	fLocation:                      {name: "Location"},
	fModel:                         {name: "Model", marks: upperNA | lowerNA},
	fOrgUUID:                       {name: "Org UUID", marks: upperNA | lowerNA},
	fOriginalReason:                {name: "Original reason", marks: upperNA | lowerNA},
	fOSType:                        {name: "OS type", marks: upperNA | lowerNA},
	fOutboundTrunk:                 {name: "Outbound trunk"},
	fRedirectReason:                {name: "Redirect reason", marks: upperNA | lowerNA},
	fRedirectingNumber:             {name: "Redirecting number", marks: upperNA | lowerNA},
	fRelatedReason:                 {name: "Related reason", marks: upperNA | lowerNA},
	fReleasingParty:                {name: "Releasing party", marks: upperNA | lowerNA},
	fReportID:                      {name: "Report ID", marks: upperNA | lowerNA},
	fReportTime:                    {name: "Report time", kind: instant, marks: upperNA | lowerNA},
	fRouteGroup:                    {name: "Route group"},
	fSiteMainNumber:                {name: "Site main number", marks: upperNA | lowerNA},
	fSiteTimezone:                  {name: "Site timezone", kind: number, marks: upperNA | lowerNA},
	fSiteUUID:                      {name: "Site UUID", marks: upperNA | lowerNA},
	fStartTime:                     {name: "Start time", kind: instant, marks: upperNA | lowerNA},
	fSubClientType:                 {name: "Sub client type", marks: upperNA | lowerNA},
	fTransferRelatedCallID:         {name: "Transfer related call ID", marks: upperNA | lowerNA},
	fUserType:                      {name: "User type", marks: upperNA | lowerNA},
	fUserUUID:                      {name: "User UUID", marks: upperNA | lowerNA},
	fAnswerIndicator:               {name: "Answer indicator", marks: upperNA | lowerNA},
	fAnswerReason:                  {name: "Answer reason"},
	fAnsweredElsewhere:             {name: "Answered Elsewhere", wire: "Answered elsewhere", marks: upperNA | lowerNA},
	fAutoAttendantKeyPressed:       {name: "Auto Attendant Key Pressed", marks: upperNA | lowerNA},
	fCallOutcome:                   {name: "Call outcome", marks: upperNA | lowerNA},
	fCallOutcomeReason:             {name: "Call outcome reason", marks: upperNA | lowerNA},
	fCallRecordingPlatformName:     {name: "Call Recording Platform Name", marks: upperNA | lowerNA},
	fCallRecordingResult:           {name: "Call Recording Result", marks: upperNA | lowerNA},
	fCallRecordingTrigger:          {name: "Call Recording Trigger", marks: upperNA | lowerNA},
	fCallTransferTime:              {name: "Call transfer Time", wire: "Call transfer time", kind: instant, marks: upperNA | lowerNA},
	fCallerIDNumber:                {name: "Caller ID number", marks: upperNA | lowerNA},
	fCallerReputationScore:         {name: "Caller Reputation Score", marks: upperNA | lowerNA},
	fCallerReputationScoreReason:   {name: "Caller Reputation Score Reason"},
	fCallerReputationServiceResult: {name: "Caller Reputation Service Result", marks: upperNA | lowerNA},
	fDeviceOwnerUUID:               {name: "Device owner UUID", marks: upperNA | lowerNA},
	fElin:                          {name: "ELIN", marks: upperNA | lowerNA},
	fEmergencyNumberSource:         {name: "Emergency number source", marks: upperNA | lowerNA},
	fExternalCallerIDNumber:        {name: "External caller ID number", marks: upperNA | lowerNA},
	fExternalCustomerID:            {name: "External customer ID", marks: upperNA | lowerNA},
	fFinalLocalSessionID:           {name: "Final local SessionID", marks: upperNA | lowerNA},
	fFinalRemoteSessionID:          {name: "Final remote SessionID", marks: upperNA | lowerNA},
	fHoldDuration:                  {name: "Hold Duration", wire: "Hold duration", kind: number, marks: upperNA | lowerNA},
	fInteractionID:                 {name: "Interaction ID", marks: upperNA | lowerNA},
	fLocalCallID:                   {name: "Local call ID", marks: upperNA | lowerNA},
	fLocalSessionID:                {name: "Local SessionID", marks: upperNA | lowerNA},
	fNetworkCallID:                 {name: "Network call ID", marks: upperNA | lowerNA},
	fOriginalCalledPartyUUID:       {name: "Original Called Party UUID", wire: "Original called party UUID", marks: upperNA | lowerNA},
	fPstnLegalEntity:               {name: "PSTN Legal Entity", wire: "PSTN legal entity", marks: upperNA | lowerNA},
	fPstnProviderID:                {name: "PSTN Provider ID", wire: "PSTN provider ID", marks: upperNA | lowerNA},
	fPstnVendorName:                {name: "PSTN Vendor Name", wire: "PSTN vendor name", marks: upperNA | lowerNA},
	fPstnVendorOrgID:               {name: "PSTN Vendor Org ID", wire: "PSTN vendor org ID", marks: upperNA | lowerNA},
	fPublicCalledIPAddress:         {name: "Public Called IP Address", marks: upperNA | lowerNA},
	fPublicCallingIPAddress:        {name: "Public Calling IP Address", marks: upperNA | lowerNA},
	fQueueType:                     {name: "Queue Type", wire: "Queue type", marks: upperNA | lowerNA},
	fRecallType:                    {name: "Recall Type", wire: "Recall type", marks: upperNA | lowerNA},
	fRedirectingPartyUUID:          {name: "Redirecting party UUID", marks: upperNA | lowerNA},
	fRelatedCallID:                 {name: "Related call ID", marks: upperNA | lowerNA},
	fReleaseTime:                   {name: "Release time", kind: instant, marks: upperNA | lowerNA},
	fRemoteCallID:                  {name: "Remote call ID", marks: upperNA | lowerNA},
	fRemoteSessionID:               {name: "Remote SessionID", marks: upperNA | lowerNA},
	fRingDuration:                  {name: "Ring duration", kind: number, marks: upperNA | lowerNA},
	fRouteListCallsOverage:         {name: "Route list calls overage", marks: upperNA | lowerNA},
	fTransferType:                  {name: "Transfer type", marks: upperNA | lowerNA},
	fTransferTypeContext:           {name: "Transfer type context"},
	fUser:                          {name: "User"},
	fUserNumber:                    {name: "User number", marks: upperNA | lowerNA},
	fWxccConsultMergeStatus:        {name: "WxCC consult merge status"},
}

// keyStyle is one way of writing all 87 keys.
type keyStyle uint8

const (
	wireKeys keyStyle = iota
	documentedKeys
	lowerKeys
	upperKeys
	keyStyles
)

// keyText holds every key as JSON, with its colon, in every style.
var keyText = func() (all [keyStyles][fieldCount]string) {
	for i, f := range fieldTable {
		all[wireKeys][i] = `"` + f.onWire() + `":`
		all[documentedKeys][i] = `"` + f.name + `":`
		all[lowerKeys][i] = `"` + strings.ToLower(f.name) + `":`
		all[upperKeys][i] = `"` + strings.ToUpper(f.name) + `":`
	}
	return all
}()
