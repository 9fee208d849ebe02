package setup

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// clientConfig is the file that Thunderbird and others ask for at autoconfig.DOMAIN/mail/config-v1.1.xml (Mozilla's
// "Autoconfiguration: Config file format").
type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider struct {
		ID       string       `xml:"id,attr"`
		Domain   string       `xml:"domain"`
		Name     string       `xml:"displayName"`
		Short    string       `xml:"displayShortName"`
		Incoming configServer `xml:"incomingServer"`
		Outgoing configServer `xml:"outgoingServer"`
	} `xml:"emailProvider"`
	Contacts *configDAV `xml:"addressBook"`
	Calendar *configDAV `xml:"calendar"`
}

type configServer struct {
	Type string `xml:"type,attr"`
	Host string `xml:"hostname"`
	Port int    `xml:"port"`
	TLS  string `xml:"socketType"`
	User string `xml:"username"`
	Auth string `xml:"authentication"`
}

type configDAV struct {
	Type string `xml:"type,attr"`
	User string `xml:"username"`
	Auth string `xml:"authentication"`
	URL  string `xml:"serverURL"`
}

// localPart stands for the part of the address before the @, which is the name that members log in with.
const localPart = "%EMAILLOCALPART%"

// WriteAutoconfig writes Mozilla's file of settings for the organisation's domain, the same for every member. ErrNothing:
// there is no mail, without which programs do not use the file.
func WriteAutoconfig(w io.Writer, s Services) error {
	if s.Mail == nil {
		return ErrNothing
	}
	c := clientConfig{Version: "1.1"}
	c.Provider.ID, c.Provider.Domain, c.Provider.Name, c.Provider.Short = s.Domain, s.Domain, s.Organisation, s.Organisation
	c.Provider.Incoming = newConfigServer("imap", s.Mail.IMAP)
	c.Provider.Outgoing = newConfigServer("smtp", s.Mail.SMTP)
	if s.DAV != nil {
		address := strings.Replace(s.DAV.URL("NAME"), "NAME", localPart, 1)
		c.Contacts = &configDAV{"carddav", localPart, "http-basic", address}
		c.Calendar = &configDAV{"caldav", localPart, "http-basic", address}
	}
	return writeXML(w, c)
}

func newConfigServer(kind string, s Server) configServer {
	c := configServer{Type: kind, Host: s.Host, Port: s.Port, TLS: "STARTTLS", User: localPart, Auth: "password-cleartext"}
	if s.TLS {
		c.TLS = "SSL"
	}
	return c
}

func writeXML(w io.Writer, v any) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// outlookSchema is the answer that Outlook asks for (MS-OXDSCLI section 2.2.4.1).
const outlookSchema = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"

// ErrRequest says that an Autodiscover request cannot be read, or asks for what we do not have.
var ErrRequest = errors.New("not an Autodiscover request for mail settings")

// maxRequest bounds an Autodiscover request in bytes.
const maxRequest = 16 << 10

// ReadAutodiscover reads the request of Outlook and returns the mail address in it.
func ReadAutodiscover(r io.Reader) (string, error) {
	var request struct {
		XMLName xml.Name `xml:"Autodiscover"`
		Address string   `xml:"Request>EMailAddress"`
		Schema  string   `xml:"Request>AcceptableResponseSchema"`
	}
	d := xml.NewDecoder(io.LimitReader(r, maxRequest))
	if err := d.Decode(&request); err != nil {
		return "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	address := strings.TrimSpace(request.Address)
	if strings.TrimSpace(request.Schema) != outlookSchema || !strings.Contains(address, "@") || len(address) > 254 {
		return "", fmt.Errorf("%w: for %q in %q", ErrRequest, request.Address, request.Schema)
	}
	return address, nil
}

type autodiscover struct {
	XMLName  xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
	Response struct {
		XMLName xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a Response"`
		Account struct {
			Type      string `xml:"AccountType"`
			Action    string `xml:"Action"`
			Protocols []autodiscoverProtocol
		} `xml:"Account"`
	}
}

type autodiscoverProtocol struct {
	XMLName  xml.Name `xml:"Protocol"`
	Type     string   `xml:"Type"`
	Server   string   `xml:"Server"`
	Port     int      `xml:"Port"`
	Login    string   `xml:"LoginName"`
	Domain   string   `xml:"DomainRequired"`
	SPA      string   `xml:"SPA"` // Secure Password Authentication: NTLM
	SSL      string   `xml:"SSL"`
	TLS      string   `xml:"Encryption"`
	Required string   `xml:"AuthRequired"`
}

// WriteAutodiscover writes the answer to Outlook for a mail address. ErrNothing: there is no mail, or the address is of
// another domain. Whether there is such a member it does not tell.
func WriteAutodiscover(w io.Writer, s Services, address string) error {
	at := strings.LastIndexByte(address, '@')
	if s.Mail == nil || at < 1 || !strings.EqualFold(address[at+1:], s.Domain) {
		return ErrNothing
	}
	var a autodiscover
	a.Response.Account.Type, a.Response.Account.Action = "email", "settings"
	for _, server := range []struct {
		kind string
		Server
	}{{"IMAP", s.Mail.IMAP}, {"SMTP", s.Mail.SMTP}} {
		p := autodiscoverProtocol{Type: server.kind, Server: server.Host, Port: server.Port, Login: strings.ToLower(address[:at]),
			Domain: "off", SPA: "off", SSL: "on", TLS: "TLS", Required: "on"}
		if server.TLS {
			p.TLS = "SSL"
		}
		a.Response.Account.Protocols = append(a.Response.Account.Protocols, p)
	}
	return writeXML(w, a)
}
