package members

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"allotment/portal/login"
	"allotment/portal/web"
)

// loginPage is what pages login, code and again show.
type loginPage struct {
	To       string
	Ticket   string // of page code
	Passkeys bool
	Password bool // of page again: there may be one
}

func newLoginPage(r *web.Request) loginPage {
	return loginPage{To: r.To("/portal/"), Passkeys: login.PasskeysPossible(r.Login.Origin(r.HTTP)), Password: true}
}

func showLogin(r *web.Request) error {
	if r.LoggedIn() {
		return r.Redirect(r.To("/portal/"))
	}
	return r.Render("login", newLoginPage(r))
}

// refused notes why somebody was not let in, and returns other errors.
func refused(r *web.Request, err error) error {
	var wait *login.WaitError
	switch {
	case errors.As(err, &wait):
		r.Status = 429
		minutes := int((wait.Until.Sub(r.Now) + time.Minute - 1) / time.Minute)
		r.Form.Fail("", "login.wait", "n", max(minutes, 1))
	case errors.Is(err, login.ErrRefused):
		r.Form.Fail("", "login.refused")
	case errors.Is(err, login.ErrTicket):
		r.Form.Fail("", "login.ticket")
	default:
		return err
	}
	return nil
}

func byPassword(r *web.Request) error {
	name, password := r.Form.Required("name", web.Line), r.Form.Secret("password")
	if !r.Form.OK() {
		return r.Render("login", newLoginPage(r))
	}
	out, err := r.Login.Password(r.HTTP, name, password)
	if err != nil {
		if err := refused(r, err); err != nil {
			return err
		}
		return r.Render("login", newLoginPage(r))
	}
	return proceed(r, out)
}

// proceed asks for a code, or lets the visitor in.
func proceed(r *web.Request, out login.Outcome) error {
	if out.Ticket != "" {
		page := newLoginPage(r)
		page.Ticket = out.Ticket
		return r.Render("code", page)
	}
	return enter(r, out, r.To("/portal/"))
}

// enter begins the session. Where an outside client's login led here, the way on is by a page: browsers let a form lead to
// our own hosts alone.
func enter(r *web.Request, out login.Outcome, to string) error {
	if _, err := r.Login.Enter(r.W, r.HTTP, out); err != nil {
		return err
	}
	if strings.HasPrefix(to, "/portal/oidc/") {
		r.W.Header().Set("Refresh", "0; url="+to)
		return r.Render("onwards", to)
	}
	return r.Redirect(to)
}

func byCode(r *web.Request) error {
	ticket, code := r.Form.Value("ticket"), r.Form.Required("code", web.Line)
	page := newLoginPage(r)
	page.Ticket = ticket
	if !r.Form.OK() {
		return r.Render("code", page)
	}
	out, err := r.Login.Code(r.HTTP, ticket, code)
	if err == nil {
		return enter(r, out, page.To)
	}
	if err := refused(r, err); err != nil {
		return err
	}
	if errors.Is(err, login.ErrTicket) {
		return r.Render("login", page)
	}
	return r.Render("code", page)
}

// ceremony is what a script needs to ask for a passkey.
type ceremony struct {
	PublicKey json.RawMessage `json:"publicKey"`
	Ticket    string          `json:"ceremony"`
}

// sendCeremony answers with options of package login, which have publicKey as their only member.
func sendCeremony(r *web.Request, options json.RawMessage, ticket string, err error) error {
	if err != nil {
		return passkeyProblem(err)
	}
	var c ceremony
	if err := json.Unmarshal(options, &c); err != nil {
		return err
	}
	c.Ticket = ticket
	r.W.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(r.W).Encode(c)
}

func passkeyProblem(err error) error {
	if errors.Is(err, login.ErrNoPasskeys) {
		return web.Fail(409, "passkeys.impossible")
	}
	return err
}

func beginPasskeyLogin(r *web.Request) error {
	options, ticket, err := r.Login.BeginPasskeyLogin(r.Login.Origin(r.HTTP))
	return sendCeremony(r, options, ticket, err)
}

func byPasskey(r *web.Request) error {
	out, err := r.Login.FinishPasskeyLogin(r.Context(), r.Form.Value("ceremony"), []byte(r.Form.Value("credential")))
	if err == nil && r.LoggedIn() && out.Person != r.Person.Name {
		err = login.ErrRefused // again, but somebody else
	}
	if err == nil {
		return enter(r, out, r.To("/portal/"))
	}
	if err := refused(r, err); err != nil {
		return err
	}
	return r.Render("login", newLoginPage(r))
}

func recoverLogin(r *web.Request) error {
	name, code := r.Form.Required("name", web.Line), r.Form.Required("code", web.Line)
	if !r.Form.OK() {
		return renderForgotten(r)
	}
	out, err := r.Login.Recover(r.HTTP, name, code)
	if err == nil {
		return enter(r, out, "/portal/me/password")
	}
	if err := refused(r, err); err != nil {
		return err
	}
	return renderForgotten(r)
}

func showAgain(r *web.Request) error {
	if r.Now.Before(r.Session.Fresh) && r.Now.Before(r.Session.Powers) {
		return r.Redirect(r.To("/portal/"))
	}
	return r.Render("again", newLoginPage(r))
}

func again(r *web.Request) error {
	password := r.Form.Secret("password")
	if !r.Form.OK() {
		return r.Render("again", newLoginPage(r))
	}
	out, err := r.Login.Password(r.HTTP, r.Person.Name, password)
	if err == nil {
		return proceed(r, out)
	}
	if err := refused(r, err); err != nil {
		return err
	}
	return r.Render("again", newLoginPage(r))
}

func logout(r *web.Request) error {
	if err := r.Sessions.End(r.Session.ID); err != nil {
		return err
	}
	r.Sessions.ClearCookie(r.W)
	return r.Done("/portal/login?to="+url.QueryEscape("/portal/"), "login.out")
}
