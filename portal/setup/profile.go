package setup

import (
	"crypto/sha1"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// ProfileType is the media type of a profile.
const ProfileType = "application/x-apple-aspen-config"

// WriteProfile writes a configuration profile for iPhone, iPad and Mac (Apple's Device Management, "Configuration Profile
// Reference"): accounts for calendar, contacts and mail. The same member's later profile replaces the one before.
func WriteProfile(w io.Writer, s Services, m Member) error {
	var content []dict
	if s.DAV != nil {
		content = append(content, davPayload(s, m, "CalDAV"), davPayload(s, m, "CardDAV"))
	}
	if s.Mail != nil && m.Mail != "" {
		content = append(content, mailPayload(s, m))
	}
	if len(content) == 0 {
		return ErrNothing
	}
	top := append(payload(s, m, "Configuration", "", s.Organisation),
		pair{"PayloadContent", content}, pair{"PayloadRemovalDisallowed", false})
	var p plist
	p.value(top, 0)
	_, err := fmt.Fprintf(w, xml.Header+`<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" `+
		`"http://www.apple.com/DTDs/PropertyList-1.0.dtd">`+"\n<plist version=\"1.0\">\n%s</plist>\n", p.String())
	return err
}

// payload is what every part of a profile has.
func payload(s Services, m Member, kind, part, title string) dict {
	identifier := "allotment." + s.Domain + "." + m.Name
	if part != "" {
		identifier += "." + part
	}
	return dict{{"PayloadType", kind}, {"PayloadVersion", 1}, {"PayloadIdentifier", identifier}, {"PayloadUUID", uuid(identifier)},
		{"PayloadDisplayName", title}, {"PayloadOrganization", s.Organisation}}
}

// uuid is the UUID of a name (RFC 9562 section 5.5, version 5, in the space of domain names).
func uuid(name string) string {
	space := []byte{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	sum := sha1.Sum(append(space, name...))
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// davPayload is an account of calendars (CalDAV) or of contacts (CardDAV).
func davPayload(s Services, m Member, protocol string) dict {
	small := strings.ToLower(protocol)
	d := append(payload(s, m, "com.apple."+small+".account", small, s.Organisation),
		pair{protocol + "AccountDescription", s.Organisation}, pair{protocol + "HostName", s.DAV.Host},
		pair{protocol + "Port", s.DAV.Port}, pair{protocol + "UseSSL", true},
		pair{protocol + "PrincipalURL", s.DAV.principal(m.Name)}, pair{protocol + "Username", m.Name})
	if m.Password != "" {
		d = append(d, pair{protocol + "Password", m.Password})
	}
	return d
}

func mailPayload(s Services, m Member) dict {
	d := append(payload(s, m, "com.apple.mail.managed", "mail", s.Organisation),
		pair{"EmailAccountDescription", s.Organisation}, pair{"EmailAccountName", m.Display},
		pair{"EmailAccountType", "EmailTypeIMAP"}, pair{"EmailAddress", m.Mail},
		pair{"OutgoingPasswordSameAsIncomingPassword", true})
	for _, server := range []struct {
		way string
		Server
	}{{"Incoming", s.Mail.IMAP}, {"Outgoing", s.Mail.SMTP}} {
		prefix := server.way + "MailServer"
		d = append(d, pair{prefix + "Authentication", "EmailAuthPassword"}, pair{prefix + "HostName", server.Host},
			pair{prefix + "PortNumber", server.Port}, pair{prefix + "UseSSL", true}, pair{prefix + "Username", m.Name})
	}
	if m.Password != "" {
		d = append(d, pair{"IncomingPassword", m.Password})
	}
	return d
}

// dict is a dictionary of a property list.
type dict []pair

type pair struct {
	key   string
	value any // string, int, bool, dict or []dict
}

// plist is a property list in XML.
type plist struct{ strings.Builder }

func (p *plist) value(v any, depth int) {
	indent := strings.Repeat("  ", depth)
	p.WriteString(indent)
	switch v := v.(type) {
	case string:
		p.WriteString("<string>")
		xml.EscapeText(p, []byte(v)) // a Builder never fails
		p.WriteString("</string>\n")
	case int:
		fmt.Fprintf(p, "<integer>%d</integer>\n", v)
	case bool:
		fmt.Fprintf(p, "<%t/>\n", v)
	case dict:
		p.WriteString("<dict>\n")
		for _, entry := range v {
			fmt.Fprintf(p, "%s  <key>%s</key>\n", indent, entry.key)
			p.value(entry.value, depth+1)
		}
		p.WriteString(indent + "</dict>\n")
	case []dict:
		p.WriteString("<array>\n")
		for _, entry := range v {
			p.value(entry, depth+1)
		}
		p.WriteString(indent + "</array>\n")
	}
}
