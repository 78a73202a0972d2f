package simulator

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// org is an organization at work: its records, and what it has asked for lately.
type org struct {
	Organization
	generator
	index     int
	directory func() *directory // made at first use: a thousand idle ones cost nothing
	places    map[string]int    // index of a location by name

	mu         sync.Mutex
	answers    *Answers          // nil: those of the simulator
	requests   int               // of the feed endpoints, faults included
	tokenCalls int               // of the token endpoint
	faultRun   int               // faults in a row
	tokenRun   int               // the same of the token endpoint
	injected   []Fault           // to be used up first, oldest first
	once       onceLog           // faults that befall a window no more than once
	budgets    map[string]*spent // by principal
	waits      map[string]time.Time
	generation int             // of the refresh token that is good now
	revoked    map[string]bool // access tokens
}

// people is how many work in an organization.
const people = 96

func newOrg(index int, organization Organization, options Options) *org {
	o := &org{
		Organization: organization,
		generator:    newGenerator(organization, options.Records, people),
		index:        index,
		places:       make(map[string]int),
		budgets:      make(map[string]*spent),
		waits:        make(map[string]time.Time),
	}
	if organization.Answers != nil {
		own := organization.Answers.clone()
		o.answers = &own
	}
	for i, name := range organization.Locations {
		o.places[name] = i
	}
	o.directory = sync.OnceValue(func() *directory { return newDirectory(o) })
	return o
}

// directory holds what the records of an organization say again and again, as
// JSON texts with their quotes.
type directory struct {
	org    string
	people []person
	sites  []site
}

type person struct {
	name, number, extension, uuid, department string
	mac, model                                string
	clientType, version, os                   string
	userType                                  string
	site                                      int
}

type site struct {
	location, uuid, mainNumber, timezone string
	services                             [roles]person // of those roles that are services
	trunk, routeGroup                    string
}

var (
	givenNames  = []string{"Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Inês", "Jürgen", "Kamala", "Liu", "Maë", "Noor", "Oisín", "Priya"}
	familyNames = []string{"Almeida", "O'Brien", "Çelik", "de Vries", "Eriksson", "Fernández", "Grün", "Hernandez-Smith", `"Ace" Ito`, "Jansen", "Kowalski", "Łuczak", "Müller", "Nguyễn", "Okafor", "Ångström", `Back\slash`}
	timezones   = []string{"-480", "-420", "-300", "-240", "-180", "0", "60", "120", "330", "540", "600"}
	areaCodes   = []string{"202", "212", "303", "312", "404", "415", "503", "512", "617", "702"}
)

// devices are client type, version, model, operating system; a phone has a MAC.
var devices = []struct{ clientType, version, model, os string }{
	{"WXC_CLIENT", "45.10.0.32870", "", "windows"},
	{"WXC_CLIENT", "45.9.1.32411", "", "mac"},
	{"WXC_CLIENT", "45.10.0.330", "", "android"},
	{"WXC_DEVICE", "12-0-7MPP0001-227", "8851-3PCC", "na"},
	{"WXC_DEVICE", "PHONEOS-3.3.1.0001-80", "9861", "na"},
	{"TEAMS_WXC_CLIENT", "45.8", "", "windows"},
	{"WXC_THIRD_PARTY", "", "Yealink T54W", "na"},
	{"SIP", "", "", ""},
}

func newDirectory(o *org) *directory {
	d := &directory{org: quoteJSON(o.UUID)}
	for i, name := range o.Locations {
		d.sites = append(d.sites, newSite(o, i, name))
	}
	for i := range people {
		d.people = append(d.people, newPerson(o, i))
	}
	return d
}

func newPerson(o *org, i int) person {
	h := draws(mix(o.generator.seed ^ saltPerson ^ uint64(i)<<40))
	device := pick(&h, devices)
	p := person{
		name:       quoteJSON(pick(&h, givenNames) + " " + pick(&h, familyNames)),
		number:     quoteJSON(fictionalNumber(&h)),
		extension:  quoteJSON(strconv.Itoa(2000 + i)),
		uuid:       quoteUUID(&h),
		clientType: quoteJSON(device.clientType),
		version:    quoteJSON(device.version),
		model:      quoteJSON(device.model),
		os:         quoteJSON(device.os),
		userType:   `"User"`,
		site:       i % len(o.Locations),
	}
	if device.model != "" {
		p.mac = quoteJSON(fmt.Sprintf("%012X", h.next()>>16))
	}
	if h.chance(0.3) {
		p.department = quoteUUID(&h)
	}
	if i%16 == 15 {
		p.userType = `"Place"`
	}
	return p
}

func newSite(o *org, i int, name string) site {
	h := draws(mix(o.generator.seed ^ saltPerson ^ uint64(i)<<20))
	s := site{
		location:   quoteJSON(name),
		uuid:       quoteUUID(&h),
		mainNumber: quoteJSON(fictionalNumber(&h)),
		timezone:   pick(&h, timezones),
		trunk:      quoteJSON("SBC " + name),
		routeGroup: quoteJSON("RouteGrp" + strconv.Itoa(i)),
	}
	service := func(label, userType string) person {
		return person{name: quoteJSON(label + " " + name), number: quoteJSON(fictionalNumber(&h)), extension: quoteJSON(strconv.Itoa(7000 + h.below(1000))), uuid: quoteUUID(&h), userType: quoteJSON(userType), site: i}
	}
	s.services[huntGroup] = service("Sales", "HuntGroup")
	s.services[queue] = service("Support", "CallCenterStandard")
	s.services[attendant] = service("Reception", "AutomatedAttendantVideo")
	s.services[voicemail] = service("Voicemail", "VoiceMailRetrieval")
	s.services[gateway] = service("Gateway", "LocalGateway")
	return s
}

// fictionalNumber is of the range 555-0100 to 555-0199, which nobody owns.
func fictionalNumber(d *draws) string {
	return fmt.Sprintf("+1%s5550%03d", pick(d, areaCodes), 100+d.below(100))
}

func quoteUUID(d *draws) string {
	return string(append(appendUUID([]byte{'"'}, d.next(), d.next(), 4), '"'))
}

// ownerOf returns who owns a leg, and where.
func (d *directory) ownerOf(o *org, c *call, leg int) (*person, *site) {
	r := c.shape.legs[leg].owner
	site := &d.sites[o.locationOf(c, leg)]
	return d.party(o, c, r, site), site
}

// party returns who plays a role, nil for somebody outside.
func (d *directory) party(o *org, c *call, r role, at *site) *person {
	switch r {
	case outside:
		return nil
	case huntGroup, queue, attendant, voicemail, gateway:
		return &at.services[r]
	default:
		return &d.people[o.personOf(c, r)]
	}
}
