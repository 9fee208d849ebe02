package directory

import (
	"io"
	"slices"
	"strings"

	"allotment/portal/directory/ldif"
	"allotment/portal/directory/sheet"
)

// column is what a column of a table says of a person.
type column struct {
	headings []string // in lower case; Export writes the first
	field    func(*Person) *string
}

// columns are those that lists of people have.
func columns() []column {
	return []column{
		{words("user name,username,user,login,uid,benutzername,benutzer,kennung"), func(p *Person) *string { return &p.Name }},
		{words("given name,first name,forename,givenname,vorname,rufname"), func(p *Person) *string { return &p.Given }},
		{words("family name,last name,surname,sn,nachname,familienname,zuname"), func(p *Person) *string { return &p.Family }},
		{words("shown name,name,full name,display name,anzeigename,mitglied,member"), func(p *Person) *string { return &p.Display }},
		{words("organisation address,vereinsadresse"), func(p *Person) *string { return &p.Mail }},
		{words("e-mail,email,mail,e-mail address,email address,e-mail-adresse,mailadresse,emailadresse"),
			func(p *Person) *string { return &p.OutsideMail }},
		{words("forward to,weiterleitung"), func(p *Person) *string { return &p.Forward }},
		{words("phone,telephone,mobile,telefon,handy,mobil,tel"), func(p *Person) *string { return &p.Phone }},
		{words("language,sprache"), func(p *Person) *string { return &p.Language }},
		{words("collective"), func(p *Person) *string { return &p.Collective }},
	}
}

func words(list string) []string { return strings.Split(list, ",") }

// groupHeadings head the column of groups.
var groupHeadings = []string{"groups", "group", "gruppen", "gruppe"}

// readTable reads people from CSV.
func readTable(r io.Reader, report *Report) ([]entrant, error) {
	s, err := sheet.Read(r)
	if err != nil {
		return nil, err
	}
	report.Encoding, report.Guessed, report.Separator = s.Encoding, s.Guessed, s.Separator
	if len(s.Rows) == 0 || s.Rows[0].Err != nil {
		return nil, ErrHeadings
	}
	heads := readHeadings(s.Rows[0].Cells, report)
	if heads == nil {
		return nil, ErrHeadings
	}
	var list []entrant
	for _, row := range s.Rows[1:] {
		list = append(list, heads.entrant(row))
	}
	return list, nil
}

// headings say what each column of a table means.
type headings struct {
	fields []func(*Person) *string // nil: ignored
	groups int                     // -1: there is no such column
}

// readHeadings returns nil if no heading is known.
func readHeadings(cells []string, report *Report) *headings {
	h := &headings{groups: -1, fields: make([]func(*Person) *string, len(cells))}
	known := false
	all := columns()
	for i, cell := range cells {
		head := strings.ToLower(strings.TrimSpace(cell))
		c := slices.IndexFunc(all, func(c column) bool { return slices.Contains(c.headings, head) })
		switch {
		case c >= 0:
			h.fields[i] = all[c].field
			known = true
		case slices.Contains(groupHeadings, head):
			h.groups = i
		case head != "":
			report.Ignored = append(report.Ignored, cell)
		}
	}
	if !known {
		return nil
	}
	h.plainName(cells)
	return h
}

// plainName takes a column "Name" beside one of given names for family names, as German lists have it.
func (h *headings) plainName(cells []string) {
	var probe Person
	given, family, name := false, false, -1
	for i, f := range h.fields {
		if f == nil {
			continue
		}
		given = given || f(&probe) == &probe.Given
		family = family || f(&probe) == &probe.Family
		if strings.EqualFold(strings.TrimSpace(cells[i]), "name") {
			name = i
		}
	}
	if given && !family && name >= 0 {
		h.fields[name] = func(p *Person) *string { return &p.Family }
	}
}

func (h *headings) entrant(row sheet.Row) entrant {
	e := entrant{line: row.Line}
	if row.Err != nil {
		e.why, e.detail = WhyRow, row.Err.Error()
		return e
	}
	for i, cell := range row.Cells {
		cell = strings.TrimSpace(sheet.Plain(cell))
		if i == h.groups {
			e.groups = splitGroups(cell)
		} else if i < len(h.fields) && h.fields[i] != nil && cell != "" {
			*h.fields[i](&e.person) = strings.Join(strings.Fields(cell), " ")
		}
	}
	p := &e.person
	if family, given, ok := strings.Cut(p.Display, ","); ok && p.Given+p.Family == "" { // "Archer, Anna"
		p.Given, p.Family, p.Display = strings.TrimSpace(given), strings.TrimSpace(family), ""
	}
	return e
}

func splitGroups(cell string) []string {
	var names []string
	for _, name := range strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune(",;/|", r) }) {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// readEntries reads people from LDIF, ours or another directory's.
func readEntries(r io.Reader, report *Report) ([]entrant, error) {
	text, s, err := sheet.Decode(r)
	if err != nil {
		return nil, err
	}
	report.Encoding, report.Guessed = s.Encoding, s.Guessed
	var list []entrant
	for _, record := range ldif.Parse(text) {
		list = append(list, readEntry(&record))
	}
	return list, nil
}

func readEntry(r *ldif.Record) entrant {
	e := entrant{line: r.Line}
	isPerson := func(class string) bool {
		return slices.Contains([]string{"person", "inetorgperson", "organizationalperson"}, strings.ToLower(class))
	}
	switch {
	case r.Err != nil:
		e.why, e.detail = WhyRow, r.Err.Error()
		return e
	case slices.ContainsFunc(r.Values("objectClass"), isGroup):
		e.group = readGroup(r)
		return e
	case !slices.ContainsFunc(r.Values("objectClass"), isPerson):
		e.why, e.detail = WhyKind, r.DN
		return e
	}
	p := Person{
		Name: strings.ToLower(r.First("uid")), Given: r.First("givenName"), Family: r.First("sn"), Display: r.First("cn"),
		OutsideMail: r.First("allotmentOutsideMail"), Forward: r.First("allotmentForward"), Phone: r.First("telephoneNumber"),
		Language: r.First("preferredLanguage"), Photo: []byte(r.First("jpegPhoto")),
		Collective: nameOf(r.First("allotmentCollective")),
	}
	if strings.HasSuffix(r.DN, ","+people) {
		p.Mail = r.First("mail")
	} else { // an address of another organisation
		p.OutsideMail = r.First("mail")
	}
	e.person = p
	return e
}

func isGroup(class string) bool {
	return slices.Contains([]string{"allotmentgroup", "groupofnames", "groupofuniquenames"}, strings.ToLower(class))
}

func readGroup(r *ldif.Record) *Group {
	g := &Group{Name: strings.ToLower(r.First("cn")), Title: r.First("displayName"), About: r.First("description"),
		Collective: nameOf(r.First("allotmentCollective"))}
	if strings.HasSuffix(r.DN, ","+groups) {
		g.Mail = r.First("mail")
	}
	for _, dn := range append(r.Values("member"), r.Values("uniqueMember")...) {
		g.Members = append(g.Members, strings.ToLower(nameOf(dn)))
	}
	return g
}
