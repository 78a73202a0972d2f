package schema

// The fields of a call detail record, in the order of the Avro record. This is
// the one table: schema, encoder, decoder and docs/event.md are made from it.
//
// A new field is appended, never inserted, and never changes its type: the
// Avro schema stays FULL compatible, and a reader's eye finds what is new.
var fields = [...]Field{
	{
		FeedName: "Answer time", AvroName: "answerTime", Group: Seed,
		Kind: TimestampMillis, Wire: wireTime, Absent: NA | LowerNA,
		Doc: "UTC instant at which this leg was picked up; blank on a leg nobody answered.",
	},
	{
		FeedName: "Answered", AvroName: "answered", Group: Seed,
		Kind: Boolean, Wire: wireQuotedBoolean, Absent: NA | LowerNA,
		Values: []string{"true", "false"},
		Doc:    "True when this one leg was picked up, so of all legs of a hunt-group call most say false and one says true; true on a HuntGroup leg means the service took the call, not a human.",
	},
	{
		FeedName: "Authorization code", AvroName: "authorizationCode", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Code keyed in by the caller to be allowed or charged for an outgoing call, issued by the administrator per location; leading zeros count and it works like a shared secret, so never log it.",
	},
	{
		FeedName: "Call ID", AvroName: "callId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "SIP dialog identifier to quote to Cisco support; it is not unique per record, can be blank on refused calls and often carries a host address after the @ sign, so do not use it as a key.",
	},
	{
		FeedName: "Call type", AvroName: "callType", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"SIP_MEETING", "SIP_INTERNATIONAL", "SIP_SHORTCODE", "SIP_INBOUND", "UNKNOWN", "SIP_EMERGENCY", "SIP_PREMIUM", "SIP_ENTERPRISE",
			"SIP_TOLLFREE", "SIP_NATIONAL", "SIP_MOBILE", "SIP_URI", "SIP_OPERATOR", "SIP_CLICKTOCALL", "ZTN",
		},
		Doc: "Kind of call as the platform routed and priced it; an external call that reaches a phone through a hunt group shows SIP_ENTERPRISE on that phone leg, and UNKNOWN is a value, not a gap.",
	},
	{
		FeedName: "Called line ID", AvroName: "calledLineId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA, PII: PIIName,
		Doc: "Display name or line identity of the called side; differs between originating and terminating legs (TERMINATING: the record owner, ORIGINATING: the far party) and is often NA for outside numbers.",
	},
	{
		FeedName: "Called number", AvroName: "calledNumber", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Number of the called side; differs between originating and terminating legs (TERMINATING: the record owner, ORIGINATING: the far party) and may be an extension, a feature code or E.164 with a plus sign.",
	},
	{
		FeedName: "Calling line ID", AvroName: "callingLineId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA, PII: PIIName,
		Doc: "Display name or line identity of the calling side; differs between originating and terminating legs (TERMINATING: the far party, ORIGINATING: the record owner).",
	},
	{
		FeedName: "Calling number", AvroName: "callingNumber", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Number of the calling side; differs between originating and terminating legs (TERMINATING: the far party, ORIGINATING: the record owner); extension or E.164.",
	},
	{
		FeedName: "Client type", AvroName: "clientType", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"SIP", "WXC_CLIENT", "WXC_THIRD_PARTY", "TEAMS_WXC_CLIENT", "WXC_DEVICE", "WXC_SIP_GW", "TEAMS_CLIENT", "TEAMS_DEVICE",
			"TEAMS_SHARE", "CLOUD_AWARE_SIP",
		},
		Doc: "Software or hardware class used by the record owner on this leg; the original sample record shows SIP_TOLLFREE here, a value outside the published list.",
	},
	{
		FeedName: "Client version", AvroName: "clientVersion", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Version text of the record owner's client; dotted and of varying length, so never parse it as a number.",
	},
	{
		FeedName: "Correlation ID", AvroName: "correlationId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Groups the legs of one call session; a transfer starts a new one and it can be blank, so a message key needs a fallback (Interaction ID, then Report ID).",
	},
	{
		FeedName: "Department ID", AvroName: "departmentId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Identifier standing for the department of the record owner; an ID, not the readable name.",
	},
	{
		FeedName: "Device MAC", AvroName: "deviceMac", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIDevice,
		Doc: "Hardware address of the phone where known, 12 hex digits without separators in the sample.",
	},
	{
		FeedName: "Dialed digits", AvroName: "dialedDigits", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Keys pressed before any number translation, including feature codes, outside-line prefix and misdials; only on ORIGINATING legs and equal to Called number when nothing was translated.",
	},
	{
		FeedName: "Direction", AvroName: "direction", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"ORIGINATING", "TERMINATING"},
		Doc:    "Side of the call this record describes: ORIGINATING for the party placing the leg, TERMINATING for the party receiving it; a hunt group appears as both.",
	},
	{
		FeedName: "Duration", AvroName: "duration", Group: Seed,
		Kind: Long, Wire: wireNumber, Absent: NA | LowerNA,
		Doc: "Whole seconds of the call; 0 on unanswered legs even when they rang, and documents do not say whether counting starts at Start time or Answer time.",
	},
	{
		FeedName: "Inbound trunk", AvroName: "inboundTrunk", Group: Seed,
		Kind: String, Wire: wireText,
		Doc: "Name of the trunk the call came in on; may be set on legs of either direction, and the name is free text chosen by the customer.",
	},
	{
		FeedName: "International country", AvroName: "internationalCountry", Group: Seed,
		Kind: String, Wire: wireText,
		Doc: "Country of the dialed number, set on international calls only; two-letter in the sample, so NA could be Namibia and must not be nulled.",
	},
	{
		FeedName: "Location", AvroName: "location", Group: Seed,
		Kind: String, Wire: wireText,
		Doc: "Control Hub location name the record belongs to, the same text the locations filter matches; free text that may be renamed and may hold commas or slashes.",
	},
	{
		FeedName: "Model", AvroName: "model", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Device model of the record owner, for example 8851-3PCC; blank for soft clients.",
	},
	{
		FeedName: "Org UUID", AvroName: "orgUuid", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Organization the record belongs to; constant per customer, useful as tenant key.",
	},
	{
		FeedName: "Original reason", AvroName: "originalReason", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"Unconditional", "NoAnswer", "Deflection", "TimeOfDay", "UserBusy", "FollowMe", "CallQueue", "HuntGroup", "Unavailable",
			"Unrecognized", "Unrecognised", "Unknown", "ExplicitIdxxx", "ImplicitId",
		},
		Doc: "Why the first redirection happened, seen from the number called first; ExplicitIdxxx stands for a prefix followed by mailbox digits, so this enumeration can never be closed.",
	},
	{
		FeedName: "OS type", AvroName: "osType", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Operating system under the client app, for example windows; legs without an app send lower-case na.",
	},
	{
		FeedName: "Outbound trunk", AvroName: "outboundTrunk", Group: Seed,
		Kind: String, Wire: wireText,
		Doc: "Name of the trunk the call left on; may be set on legs of either direction, and the name is free text chosen by the customer.",
	},
	{
		FeedName: "Redirect reason", AvroName: "redirectReason", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"Unconditional", "NoAnswer", "Deflection", "TimeOfDay", "UserBusy", "FollowMe", "CallQueue", "HuntGroup", "Unavailable",
			"Unrecognized", "Unrecognised", "Unknown", "ExplicitIdxxx", "ImplicitId",
		},
		Doc: "Why the most recent redirection happened, belonging to Redirecting number; compare Original reason for the first one.",
	},
	{
		FeedName: "Redirecting number", AvroName: "redirectingNumber", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Number of whoever redirected the call most recently through forward, transfer, simultaneous ring and the like; earlier hops are not listed.",
	},
	{
		FeedName: "Related reason", AvroName: "relatedReason", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"ConsultativeTransfer", "CallForwardSelective", "CallForwardAlways", "CallForwardNoAnswer", "CallQueue", "HuntGroup",
			"CallPickup", "CalllPark", "CallPark", "CallParkRetrieve", "Deflection", "FaxDeposit", "PushNotificationRetrieval", "BargeIn",
			"VoiceXMLScriptTermination", "AnywhereLocation", "AnywherePortal", "Unrecognized", "Unrecognised", "CallForwardModeBased",
			"CallForwardBusy", "CallForwardNotReachable", "CallRetrieve", "CallRecording", "DirectedCallPickup", "Executive",
			"ExecutiveAssistantInitiateCall", "ExecutiveAssistantDivert", "ExecutiveForward", "ExecutiveAssistantCallPush", "Remote Office",
			"RemoteOffice", "RoutePoint", "SequentialRing", "SimultaneousRingPersonal", "CCMonitoringBI",
		},
		Doc: "Service that changed the state of this call or of a linked call, such as park, pickup or transfer; the published list itself holds the misspelling CalllPark and a value with a space, so carry text verbatim.",
	},
	{
		FeedName: "Releasing party", AvroName: "releasingParty", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Local", "Remote", "Unknown"},
		Doc:    "Who hung up first relative to the record owner, so the two legs of a call normally disagree; Unknown covers partial records and audit clean-ups and is a value.",
	},
	{
		FeedName: "Report ID", AvroName: "reportId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Identity of this record and the key for de-duplication; REQUIRED, a record without it goes to quarantine; all samples are version-3 (name-based) UUIDs.",
	},
	{
		FeedName: "Report time", AvroName: "reportTime", Group: Seed,
		Kind: TimestampMillis, Wire: wireTime, Absent: NA | LowerNA,
		Doc: "UTC instant of the record, described both as creation and as end of call; equal to Release time in every live sample seen, so it does not reveal late arrival.",
	},
	{
		FeedName: "Route group", AvroName: "routeGroup", Group: Seed,
		Kind: String, Wire: wireText,
		Doc: "Route group that carried an outgoing call towards premises PSTN or an on-premises system; ORIGINATING legs only, free text.",
	},
	{
		FeedName: "Site main number", AvroName: "siteMainNumber", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Main number of the site of the record owner; a business number, listed as number so that one masking rule covers all phone numbers.",
	},
	{
		FeedName: "Site timezone", AvroName: "siteTimezone", Group: Seed,
		Kind: Int, Wire: wireQuotedSigned, Absent: NA | LowerNA,
		Doc: "Minutes to add to UTC for the record owner's local time, signed, daylight saving included in the samples (-300 in May for Texas); typed string by the documents.",
	},
	{
		FeedName: "Site UUID", AvroName: "siteUuid", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Stable identifier of the site or location; prefer it to Location for joins because names change.",
	},
	{
		FeedName: "Start time", AvroName: "startTime", Group: Seed,
		Kind: TimestampMillis, Wire: wireTime, Absent: NA | LowerNA,
		Doc: "UTC instant the leg began; on feed windows it may lie before the requested startTime when the call was long.",
	},
	{
		FeedName: "Sub client type", AvroName: "subClientType", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"MOBILE_NETWORK"},
		Doc:    "Refines Client type: MOBILE_NETWORK together with Client type SIP marks a Webex Go mobile leg.",
	},
	{
		FeedName: "Transfer related call ID", AvroName: "transferRelatedCallId", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Points at the other call of a consultative transfer and looks like a Local call ID (digits:digits); not filled for blind transfers according to the field.",
	},
	{
		FeedName: "User type", AvroName: "userType", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"AutomatedAttendantVideo", "Anchor", "BroadworksAnywhere", "VoiceMailRetrieval", "LocalGateway", "HuntGroup", "GroupPaging",
			"User", "VoiceMailGroup", "CallCenterStandard", "CallCenterPremium", "VoiceXML", "RoutePoint", "Place", "VirtualLine", "VirtuaLline",
			"RouteList",
		},
		Doc: "Kind of entity that owns the record: person, workspace, virtual line or a service such as hunt group; VirtuaLline is how the documents spell one value.",
	},
	{
		FeedName: "User UUID", AvroName: "userUuid", Group: Seed,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Identity of the record owner (person, workspace or service), the same across Cisco products; personal data when User type is User.",
	},
	{
		FeedName: "Answer indicator", AvroName: "answerIndicator", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Yes", "No", "Yes-PostRedirection"},
		Doc:    "Finer form of Answered: Yes-PostRedirection marks a leg picked up only after it had been redirected.",
	},
	{
		FeedName: "Answer reason", AvroName: "answerReason", Group: Later,
		Kind: String, Wire: wireText,
		Values: []string{"Auto Answer", "N/A"},
		Doc:    "How the leg was picked up: Auto Answer when that feature did it, N/A for a manual pick-up; newest field, in samples of September 2026 and not in the June 2026 specification.",
	},
	{
		FeedName: "Answered Elsewhere", AvroName: "answeredElsewhere", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Yes"},
		Doc:    "Yes on a TERMINATING leg whose call somebody else took, as happens with simultaneous ring; no negative value is documented, so keep text; on the wire as Answered elsewhere.",
	},
	{
		FeedName: "Auto Attendant Key Pressed", AvroName: "autoAttendantKeyPressed", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Last menu key the caller pressed in an auto attendant; may be * or #, and NA on legs without an attendant.",
	},
	{
		FeedName: "Call outcome", AvroName: "callOutcome", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Success", "Failure", "Refusal"},
		Doc:    "Coarse result of the leg; busy and unanswered calls count as Success, so this does not tell whether anybody talked.",
	},
	{
		FeedName: "Call outcome reason", AvroName: "callOutcomeReason", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{
			"Normal", "UserBusy", "NoAnswer", "CallRejected", "UnassignedNumber", "SIP408", "InternalRequestTimeout", "Q850102ServerTimeout",
			"NoUserResponse", "NoAnswerFromUser", "SIP480", "SIP487", "TemporarilyUnavailable", "AdminCallBlock", "UserCallBlock", "Unreachable",
			"LocalGatewayLoop", "UserAbsent", "DestinationOutOfOrder", "SIP501", "SIP503", "ProtocolError", "SIP606", "NoRouteToDestination",
			"Internal", "MaxConcurrentTerminatingAlertingRequestsExceeded",
		},
		Doc: "Detail behind Call outcome; Normal, UserBusy and NoAnswer go with Success, the rest with Refusal or Failure.",
	},
	{
		FeedName: "Call Recording Platform Name", AvroName: "callRecordingPlatformName", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"DubberRecorder", "Webex", "Unknown", "Eleveo", "ASCTech", "MiaRec", "Imagicle"},
		Doc:    "Vendor that recorded the call; Unknown means the vendor could not be looked up, not that nothing was recorded.",
	},
	{
		FeedName: "Call Recording Result", AvroName: "callRecordingResult", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"successful", "failed", "successful but not kept"},
		Doc:    "What became of the recorded media.",
	},
	{
		FeedName: "Call Recording Trigger", AvroName: "callRecordingTrigger", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"always", "always-pause-resume", "on-demand", "on-demand-user-start"},
		Doc:    "Recording mode set for the record owner on this call.",
	},
	{
		FeedName: "Call transfer Time", AvroName: "callTransferTime", Group: Later,
		Kind: TimestampMillis, Wire: wireTime, Absent: NA | LowerNA,
		Doc: "UTC instant a transfer was invoked during the call; on the wire as Call transfer time.",
	},
	{
		FeedName: "Caller ID number", AvroName: "callerIdNumber", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Number presented as caller ID under the Control Hub setting; not always E.164, and on redirected calls it is that of the redirecting party.",
	},
	{
		FeedName: "Caller Reputation Score", AvroName: "callerReputationScore", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Decimal text from 0.0 to 5.0 given by the reputation provider; key left out or blank when no score came, kept as text because no filled sample is known.",
	},
	{
		FeedName: "Caller Reputation Score Reason", AvroName: "callerReputationScoreReason", Group: Later,
		Kind: String, Wire: wireText,
		Doc: "Provider's explanation of the score, or the error that prevented one; free text.",
	},
	{
		FeedName: "Caller Reputation Service Result", AvroName: "callerReputationServiceResult", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"allow", "captcha-allow", "captcha-block", "block"},
		Doc:    "Verdict on the caller, TERMINATING legs only; allow is also used when the provider failed, so it is no proof of a good score.",
	},
	{
		FeedName: "Device owner UUID", AvroName: "deviceOwnerUuid", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Owner of the physical device when a shared or multi-line key was used; filled only if that owner differs from the line's user.",
	},
	{
		FeedName: "ELIN", AvroName: "elin", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Emergency location number used for an emergency call or its callback, from the location pool or a workspace's own number.",
	},
	{
		FeedName: "Emergency number source", AvroName: "emergencyNumberSource", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"ELIN Pool", "Workspace ELIN", "Workspace ELIN Fallback", "ECBN Fallback", "ECBN"},
		Doc:    "Where the number used for an emergency call or callback came from; the two Fallback values occur on ORIGINATING legs only.",
	},
	{
		FeedName: "External caller ID number", AvroName: "externalCallerIdNumber", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "Outbound presentation number when it is a location or organization number; documents restrict it to ORIGINATING legs, yet a live TERMINATING record carried it.",
	},
	{
		FeedName: "External customer ID", AvroName: "externalCustomerId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Key present in live records and in the SDK but described nowhere public; by its name a partner's own customer reference; blank in all samples.",
	},
	{
		FeedName: "Final local SessionID", AvroName: "finalLocalSessionId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Value of Local SessionID when the call ended; 32 hex digits without dashes.",
	},
	{
		FeedName: "Final remote SessionID", AvroName: "finalRemoteSessionId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Value of Remote SessionID when the call ended; 32 hex digits without dashes.",
	},
	{
		FeedName: "Hold Duration", AvroName: "holdDuration", Group: Later,
		Kind: Long, Wire: wireNumber, Absent: NA | LowerNA,
		Doc: "Seconds spent on hold, rounded down; on the wire as Hold duration.",
	},
	{
		FeedName: "Interaction ID", AvroName: "interactionId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Wider grouping than Correlation ID: shared by calls that one service action joins, such as the consult call and the transferred call.",
	},
	{
		FeedName: "Local call ID", AvroName: "localCallId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Identifier of this record's own end of the leg, form digits:digits; pairs with Remote call ID of the opposite record and is the target of Related and Transfer related call ID.",
	},
	{
		FeedName: "Local SessionID", AvroName: "localSessionId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "SIP Session-ID half made by the originating agent (RFC 7206 family), 32 hex digits; follows a call across hops.",
	},
	{
		FeedName: "Network call ID", AvroName: "networkCallId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Equal on the records that describe the same leg, useful when the local and remote pair is blank; text may end in a host address.",
	},
	{
		FeedName: "Original Called Party UUID", AvroName: "originalCalledPartyUuid", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Identity of the first party that redirected the call (person, service, workspace or virtual line); on the wire as Original called party UUID.",
	},
	{
		FeedName: "PSTN Legal Entity", AvroName: "pstnLegalEntity", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Regulated company behind the PSTN service, Cisco Calling Plans only; on the wire as PSTN legal entity.",
	},
	{
		FeedName: "PSTN Provider ID", AvroName: "pstnProviderId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Fixed UUID of the PSTN provider; on the wire as PSTN provider ID.",
	},
	{
		FeedName: "PSTN Vendor Name", AvroName: "pstnVendorName", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Cisco Calling Plans", "Tata", "IntelePeer", "KDDI"},
		Doc:    "Name of the PSTN seller for the country, Cisco Calling Plans or a partner; on the wire as PSTN vendor name.",
	},
	{
		FeedName: "PSTN Vendor Org ID", AvroName: "pstnVendorOrgId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Organization UUID of the Cisco Calling Plans seller, the same in a US and a Canadian sample; on the wire as PSTN vendor org ID.",
	},
	{
		FeedName: "Public Called IP Address", AvroName: "publicCalledIpAddress", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIP,
		Doc: "Public address of the receiving device; older texts say India locations, newer ones Internet Telephony Numbers; NA elsewhere.",
	},
	{
		FeedName: "Public Calling IP Address", AvroName: "publicCallingIpAddress", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIP,
		Doc: "Public address of the calling device; older texts say India locations, newer ones Internet Telephony Numbers; NA elsewhere.",
	},
	{
		FeedName: "Queue Type", AvroName: "queueType", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"Customer Assist", "Call Queue"},
		Doc:    "Which kind of queue handled the call; on the wire as Queue type.",
	},
	{
		FeedName: "Recall Type", AvroName: "recallType", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Marks the return of a parked call nobody fetched in time, to the parker or a hunt group; on the wire as Recall type; values not published.",
	},
	{
		FeedName: "Redirecting party UUID", AvroName: "redirectingPartyUuid", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIIIdentifier,
		Doc: "Identity of the person or service that redirected the call most recently.",
	},
	{
		FeedName: "Related call ID", AvroName: "relatedCallId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Local call ID of another call that a service spawned from, or linked to, this one, such as each ring attempt of a hunt group.",
	},
	{
		FeedName: "Release time", AvroName: "releaseTime", Group: Later,
		Kind: TimestampMillis, Wire: wireTime, Absent: NA | LowerNA,
		Doc: "UTC instant the call ended; equal to Report time in every live sample seen.",
	},
	{
		FeedName: "Remote call ID", AvroName: "remoteCallId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "Local call ID of the opposite record of the same leg; blank on PSTN legs in the samples.",
	},
	{
		FeedName: "Remote SessionID", AvroName: "remoteSessionId", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "SIP Session-ID half made by the terminating agent, 32 hex digits.",
	},
	{
		FeedName: "Ring duration", AvroName: "ringDuration", Group: Later,
		Kind: Long, Wire: wireQuotedNumber, Absent: NA | LowerNA,
		Doc: "Seconds of ringing until pick-up or give-up; documents type it number, live records send text.",
	},
	{
		FeedName: "Route list calls overage", AvroName: "routeListCallsOverage", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Doc: "How many route-list calls ran above the licensed volume at that moment, set only when the licence was exceeded; a count, but typed string by documents and SDK and never seen filled.",
	},
	{
		FeedName: "Transfer type", AvroName: "transferType", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA,
		Values: []string{"AI Receptionist Deflection By Intent", "AI Receptionist Deflection By Default"},
		Doc:    "What kind of automated transfer was tried, so far by the AI receptionist.",
	},
	{
		FeedName: "Transfer type context", AvroName: "transferTypeContext", Group: Later,
		Kind: String, Wire: wireText, PII: PIIIdentifier,
		Doc: "Free text behind Transfer type, such as the intent the AI receptionist heard; tells why somebody rang (possibly health-related), so mask it as personal data.",
	},
	{
		FeedName: "User", AvroName: "user", Group: Later,
		Kind: String, Wire: wireText, PII: PIIName,
		Doc: "Display name of the record owner, which may be a person, workspace, virtual line, auto attendant or queue.",
	},
	{
		FeedName: "User number", AvroName: "userNumber", Group: Later,
		Kind: String, Wire: wireText, Absent: NA | LowerNA, PII: PIINumber,
		Doc: "E.164 number of the record owner, or the extension when no number is assigned.",
	},
	{
		FeedName: "WxCC consult merge status", AvroName: "wxccConsultMergeStatus", Group: Later,
		Kind: String, Wire: wireText,
		Values: []string{"Yes", "No", "NA"},
		Doc:    "Contact Center consult call: Yes if the consulted party was joined to the customer, No if not, NA if the leg is no consult call; here NA is a real value.",
	},
}
