package members

import (
	"encoding/base64"
	"errors"
	"html/template"
	"net/url"
	"slices"
	"time"

	"github.com/skip2/go-qrcode"

	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/session"
	"allotment/portal/sso"
	"allotment/portal/web"
)

// mePage is what page me shows.
type mePage struct {
	Person    directory.Person
	Languages []web.Option
	Confirmed bool // her address elsewhere is
	Mail      bool // links can be sent there
}

func showMe(r *web.Request) error {
	p := r.Person
	for field, value := range map[string]string{"given": p.Given, "family": p.Family, "display": p.Display, "outside": p.OutsideMail,
		"forward": p.Forward, "phone": p.Phone, "language": p.Language, "revision": p.Revision} {
		r.Form.Set(field, value)
	}
	return renderMe(r)
}

func renderMe(r *web.Request) error {
	page := mePage{Person: r.Person, Languages: []web.Option{{Value: "", Label: r.T("me.nolanguage")}}, Mail: r.Login.MailWorks()}
	var err error
	if page.Confirmed, err = r.Login.AddressConfirmed(r.Person); err != nil {
		return err
	}
	for _, tag := range r.Languages() {
		page.Languages = append(page.Languages, web.Option{Value: tag, Label: r.T("language." + tag)})
	}
	return r.Render("me", page)
}

func changeMe(r *web.Request) error {
	f := r.Form
	given, family, display := f.Text("given", web.Line), f.Text("family", web.Line), f.Text("display", web.Line)
	outside, forward, phone := f.Mail("outside"), f.Mail("forward"), f.Phone("phone")
	language := f.Choice("language", append(r.Languages(), "")...)
	if given+family == "" {
		f.Fail("given", "form.required")
	}
	if outside != r.Person.OutsideMail && !r.Now.Before(r.Session.Fresh) { // by it an account can be taken over
		return r.Redirect("/portal/login/again?to=" + url.QueryEscape("/portal/me"))
	}
	if !f.OK() {
		return renderMe(r)
	}
	err := r.Directory.ChangePerson(r.Context(), r.Person.Name, f.Value("revision"), func(p *directory.Person) {
		p.Given, p.Family, p.Display = given, family, display
		p.OutsideMail, p.Forward, p.Phone, p.Language = outside, forward, phone, language
	})
	if errors.Is(err, directory.ErrConflict) {
		f.Set("revision", r.Person.Revision)
		f.Fail("", "me.conflict")
	} else if err := f.Take("", err); err != nil {
		return err
	}
	if !f.OK() {
		return renderMe(r)
	}
	r.Record("person.changed", r.Person.Name, nil)
	if outside != "" && outside != r.Person.OutsideMail && r.Login.MailWorks() {
		if err := sendConfirmTo(r, outside); err != nil {
			return err
		}
		if f.OK() {
			return r.Done("/portal/me", "me.confirm.sent", "mail", outside)
		}
	}
	return r.Done("/portal/me", "me.saved")
}

// methodsPage is what page methods shows.
type methodsPage struct {
	Methods  login.Methods
	Possible bool   // passkeys are, by this address
	Host     string // of this address
	Sessions []session.Session
	Current  string // ID of this session
}

func showMethods(r *web.Request) error {
	m, err := r.Login.Methods(r.Person.Name)
	if err != nil {
		return err
	}
	sessions, err := r.Sessions.List(r.Person.Name)
	if err != nil {
		return err
	}
	return r.Render("methods", methodsPage{m, login.PasskeysPossible(r.Origin()), session.Host(r.Host()), sessions, r.Session.ID})
}

func showPassword(r *web.Request) error { return r.Render("password", nil) }

func changePassword(r *web.Request) error {
	password := r.Form.Secret("password")
	if password != r.Form.Value("repeat") {
		r.Form.Fail("repeat", "password.different")
	}
	if r.Form.OK() {
		err := r.Login.ChangePassword(r.Context(), r.Person.Name, r.Person.Name, password, r.Session.ID)
		if err := takePassword(r.Form, err); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return r.Render("password", nil)
	}
	return r.Done("/portal/me/login", "password.changed")
}

// takePassword notes why a password is refused, and returns other errors.
func takePassword(f *web.Form, err error) error {
	for _, known := range []struct {
		err error
		key string
	}{
		{login.ErrShort, "password.short"}, {login.ErrLong, "password.long"}, {login.ErrCommon, "password.common"},
		{login.ErrOwn, "password.own"},
	} {
		if errors.Is(err, known.err) {
			f.Fail("password", known.key)
			return nil
		}
	}
	return f.Take("password", err)
}

func showPasskey(r *web.Request) error {
	if !login.PasskeysPossible(r.Login.Origin(r.HTTP)) {
		return web.Fail(409, "passkeys.impossible")
	}
	r.Form.Set("label", session.Device(r.HTTP.UserAgent()))
	return r.Render("passkey", nil)
}

func beginPasskey(r *web.Request) error {
	options, ticket, err := r.Login.BeginPasskey(r.Context(), r.Person.Name, r.Login.Origin(r.HTTP))
	return sendCeremony(r, options, ticket, err)
}

func addPasskey(r *web.Request) error {
	label := r.Form.Required("label", web.Line)
	if !r.Form.OK() {
		return r.Render("passkey", nil)
	}
	k, err := r.Login.FinishPasskey(r.Context(), r.Person.Name, r.Form.Value("ceremony"), label, []byte(r.Form.Value("credential")))
	if errors.Is(err, login.ErrRefused) || errors.Is(err, login.ErrTicket) {
		r.Form.Fail("", "passkeys.refused")
		return r.Render("passkey", nil)
	}
	if err != nil {
		return passkeyProblem(err)
	}
	return r.Done(r.To("/portal/me/login"), "passkeys.added", "label", k.Label)
}

func removePasskey(r *web.Request) error {
	m, err := r.Login.Methods(r.Person.Name)
	if err != nil {
		return err
	}
	for _, k := range m.Passkeys {
		if k.ID == r.Path("id") {
			if err := r.Login.RemovePasskey(r.Context(), r.Person.Name, r.Person.Name, k.ID); err != nil {
				return err
			}
			return r.Done("/portal/me/login", "passkeys.removed")
		}
	}
	return web.ErrNotFound
}

// totpPage is what page totp shows.
type totpPage struct {
	QR     template.URL // a picture of URI
	URI    template.URL
	Secret string
	Ticket string
}

func showTOTP(r *web.Request) error {
	uri, secret, ticket, err := r.Login.BeginTOTP(r.Person.Name)
	if err != nil {
		return err
	}
	picture, err := qrcode.Encode(uri, qrcode.Medium, 320)
	if err != nil {
		return err
	}
	// Both are of our own making: an otpauth address, and a picture of it.
	return r.Render("totp", totpPage{template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(picture)),
		template.URL(uri), secret, ticket})
}

func confirmTOTP(r *web.Request) error {
	code := r.Form.Required("code", web.Line)
	err := r.Login.ConfirmTOTP(r.Context(), r.Person.Name, r.Form.Value("ticket"), code)
	if err == nil {
		return r.Done("/portal/me/login", "totp.on")
	}
	if !errors.Is(err, login.ErrRefused) && !errors.Is(err, login.ErrTicket) {
		return err
	}
	r.Form.Fail("code", "totp.wrong")
	return showTOTP(r) // with a new key: the former may have been copied wrongly
}

func removeTOTP(r *web.Request) error {
	if err := r.Login.RemoveTOTP(r.Context(), r.Person.Name, r.Person.Name); err != nil {
		return err
	}
	return r.Done("/portal/me/login", "totp.off")
}

func makeCodes(r *web.Request) error {
	codes, err := r.Login.MakePrinted(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	return r.Render("codes", codes)
}

func endSession(r *web.Request) error {
	all, err := r.Sessions.List(r.Person.Name)
	if err != nil {
		return err
	}
	for _, s := range all { // only her own
		if s.ID == r.Path("id") {
			if err := r.Sessions.End(s.ID); err != nil {
				return err
			}
			return r.Done("/portal/me/login", "sessions.ended")
		}
	}
	return web.ErrNotFound
}

func endOthers(r *web.Request) error {
	if err := r.Sessions.EndOthers(r.Person.Name, r.Session.ID); err != nil {
		return err
	}
	return r.Done("/portal/me/login", "sessions.others")
}

// appsPage is what page apps shows.
type appsPage struct {
	Passwords []directory.AppPassword
	Secret    string // the new one, told once
	Label     string
	Now       time.Time
}

func showApps(r *web.Request) error { return renderApps(r, appsPage{}) }

func renderApps(r *web.Request, page appsPage) error {
	var err error
	page.Now = r.Now
	if page.Passwords, err = r.Directory.AppPasswords(r.Context(), r.Person.Name); err != nil {
		return err
	}
	page.Passwords = slices.DeleteFunc(page.Passwords, sso.OfSession) // those are of browsers, and end with their sessions
	return r.Render("apps", page)
}

// mostApps is how many passwords for apps a person can have.
const mostApps = 20

func addApp(r *web.Request) error {
	label := r.Form.Required("label", 60)
	all, err := r.Directory.AppPasswords(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	if len(slices.DeleteFunc(all, sso.OfSession)) >= mostApps {
		r.Form.Fail("label", "apps.many", "n", mostApps)
	}
	if !r.Form.OK() {
		return renderApps(r, appsPage{})
	}
	_, secret, err := r.Directory.AddAppPassword(r.Context(), r.Person.Name, label, time.Time{})
	if err != nil {
		return err
	}
	r.Record("app.added", r.Person.Name, map[string]string{"label": label})
	r.Form.Set("label", "")
	return renderApps(r, appsPage{Secret: secret, Label: label})
}

func removeApp(r *web.Request) error {
	if err := r.Directory.RemoveAppPassword(r.Context(), r.Person.Name, r.Path("id")); err != nil {
		return err
	}
	r.Record("app.removed", r.Person.Name, nil)
	return r.Done("/portal/me/apps", "apps.removed")
}
