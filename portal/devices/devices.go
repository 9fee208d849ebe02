// Package devices is the pages that help members to set up their telephones, tablets and computers: steps, a password
// for each device, the profile for Apple's.
package devices

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/directory"
	"allotment/portal/qr"
	"allotment/portal/setup"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

const root = "/portal/devices"

// Section is the pages of this package. Package setup has the words of the steps.
func Section() web.Section {
	route := func(method, path, does string, handle func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: root + path, Access: api.Member, Does: does, Handle: handle}
	}
	return web.Section{Name: "devices", Files: files, Routes: []web.Route{
		route("GET", "", "choose a kind of device", list),
		route("GET", "/{device}", "how a device is set up", show),
		route("POST", "/{device}", "make a password for a device", addPassword),
		route("POST", "/{device}/profile", "a profile with a password, for Apple's devices", profile),
		route("GET", "/{device}/qr.svg", "the address of the page, for the device itself", code),
	}}
}

// noDomain is what an organisation without a domain is called; visitors come by an address then.
const noDomain = "allotment.internal"

// services are what the modules that are on offer to devices: nothing without HTTPS, since devices send passwords.
func services(r *web.Request) setup.Services {
	c := r.Config()
	host := c.Domain
	if host == noDomain || host == "" {
		host = r.Host()
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
	}
	s := setup.Services{Organisation: r.Organisation(), Domain: c.Domain}
	if !strings.HasPrefix(r.Origin(), "https://") {
		return s
	}
	for _, m := range c.Modules {
		switch m.Name {
		case "calendar":
			s.DAV = &setup.DAV{Host: host, Port: 443, Path: m.Path}
		case "chat":
			s.Chat = &setup.Chat{Web: "https://" + host + m.Path}
		}
	}
	return s
}

func memberOf(r *web.Request) setup.Member {
	return setup.Member{Name: r.Person.Name, Display: r.Person.Display, Mail: r.Person.Mail}
}

// device is the one in the path.
func device(r *web.Request) (setup.Device, error) {
	d := setup.Device(r.Path("device"))
	if !slices.Contains(setup.Devices(), d) {
		return "", web.ErrNotFound
	}
	return d, nil
}

// page is what both pages show.
type page struct {
	Device   setup.Device
	Devices  []setup.Device
	Guides   []guide
	Password string // the new one, told once
	Link     string // of the page, to open on the device
}

// guide is a guide in the visitor's language.
type guide struct {
	Title string
	Steps []step
}

type step struct {
	Text, Copy string
	Open       template.URL // of our own making: templates know no links of apps
	Profile    bool
}

func list(r *web.Request) error {
	p := page{Devices: setup.Devices()}
	if s := services(r); s.DAV == nil && s.Chat == nil {
		p.Devices = nil
	}
	return r.Render("devices", p)
}

func show(r *web.Request) error { return render(r, "") }

func render(r *web.Request, password string) error {
	d, err := device(r)
	if err != nil {
		return err
	}
	p := page{Device: d, Password: password, Link: r.Origin() + root + "/" + string(d)}
	for _, g := range setup.Guides(services(r), memberOf(r), d) {
		words := guide{Title: r.T("setup." + string(g.Device) + "." + g.Thing)}
		for _, s := range g.Steps {
			words.Steps = append(words.Steps, step{r.T(s.Key), s.Copy, template.URL(s.Open), s.Profile})
		}
		p.Guides = append(p.Guides, words)
	}
	return r.Render("device", p)
}

// most is how many passwords for apps a person can have.
const most = 20

// newPassword makes a password for a device; "" if she has too many, which the form then says.
func newPassword(r *web.Request, d setup.Device) (string, error) {
	all, err := r.Directory.AppPasswords(r.Context(), r.Person.Name)
	if err != nil {
		return "", err
	}
	if len(all) >= most {
		r.Form.Fail("", "devices.many", "n", most)
		return "", nil
	}
	label, err := directory.CleanText(r.T("devices.label", "device", r.T("devices."+string(d)), "date", r.Now.Format(time.DateOnly)))
	if err != nil {
		return "", err
	}
	_, secret, err := r.Directory.AddAppPassword(r.Context(), r.Person.Name, label, time.Time{})
	if err == nil {
		r.Record("app.added", r.Person.Name, map[string]string{"label": label})
	}
	return secret, err
}

func addPassword(r *web.Request) error {
	d, err := device(r)
	if err != nil {
		return err
	}
	secret, err := newPassword(r, d)
	if err != nil {
		return err
	}
	return render(r, secret)
}

func profile(r *web.Request) error {
	d, err := device(r)
	if err != nil {
		return err
	}
	s, m := services(r), memberOf(r)
	if s.Mail == nil && s.DAV == nil || d != setup.Apple && d != setup.Mac {
		return web.ErrNotFound
	}
	if m.Password, err = newPassword(r, d); err != nil || m.Password == "" {
		return errors.Join(err, render(r, ""))
	}
	var b bytes.Buffer
	if err := setup.WriteProfile(&b, s, m); err != nil {
		return err
	}
	h := r.W.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", setup.ProfileType)
	h.Set("Content-Disposition", `inline; filename="organisation.mobileconfig"`) // as an attachment it would end among the files
	_, err = r.W.Write(b.Bytes())
	return err
}

func code(r *web.Request) error {
	d, err := device(r)
	if err != nil {
		return err
	}
	b, err := qr.SVG(r.Origin() + root + "/" + string(d))
	if err != nil {
		return err
	}
	r.W.Header().Set("Content-Type", "image/svg+xml")
	r.W.WriteHeader(http.StatusOK)
	_, err = r.W.Write(b)
	return err
}
