// Package setup writes what members' devices need to know of the organisation's calendar, contacts, mail and chat:
// configuration profiles for Apple's devices, the files that mail programs ask for by themselves, and steps for people.
//
// Profiles are not signed: a signature would need the gateway's key, which the portal has not. The device says so.
package setup

import (
	"errors"
	"net"
	"net/url"
	"strconv"
)

// Services are what the organisation offers; nil for what it does not.
type Services struct {
	Organisation string // as people call it
	Domain       string // of mail addresses and names of chat
	DAV          *DAV
	Mail         *Mail
	Chat         *Chat
}

// DAV is the server of calendars (CalDAV, RFC 4791) and contacts (CardDAV, RFC 6352).
type DAV struct {
	Host string // name or address
	Port int
	Path string // such as /calendar/; a member's things are in the folder of her name below
}

// URL is where programs find a member's calendars and contacts.
func (d *DAV) URL(name string) string {
	host := d.Host
	if d.Port != 443 {
		host = net.JoinHostPort(d.Host, strconv.Itoa(d.Port))
	}
	u := url.URL{Scheme: "https", Host: host, Path: d.principal(name)}
	return u.String()
}

func (d *DAV) principal(name string) string { return d.Path + name + "/" }

// Mail is where mail programs get and send mail.
type Mail struct {
	IMAP Server
	SMTP Server // submission (RFC 6409)
}

// Server is a server of one protocol.
type Server struct {
	Host string
	Port int
	TLS  bool // from the start; otherwise by STARTTLS
}

// Chat is an XMPP server (RFC 6120) of Domain.
type Chat struct {
	Web string // address of the page where a browser chats
}

// Member is for whom something is set up.
type Member struct {
	Name     string // that she logs in with
	Display  string
	Mail     string // in the organisation; empty: none
	Password string // for this device's apps; empty: the device asks
}

// ErrNothing says that the organisation offers nothing that could be set up this way.
var ErrNothing = errors.New("nothing to set up")
