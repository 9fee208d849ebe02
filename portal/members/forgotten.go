package members

import (
	"errors"
	"net/http"
	"net/url"

	"allotment/portal/login"
	"allotment/portal/web"
)

// forgottenPage is what page forgotten shows.
type forgottenPage struct {
	Mail bool // links can be sent
}

func showForgotten(r *web.Request) error { return renderForgotten(r) }

func renderForgotten(r *web.Request) error {
	return r.Render("forgotten", forgottenPage{r.Login.MailWorks()})
}

// sendReset answers the same for every name, in the same time.
func sendReset(r *web.Request) error {
	name := r.Form.Required("account", web.Line)
	if r.Form.OK() {
		if err := r.Login.SendReset(r.HTTP, name); errors.Is(err, login.ErrNoMail) {
			r.Form.Fail("", "forgotten.nomail")
		} else if err := refused(r, err); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return renderForgotten(r)
	}
	return r.Redirect("/portal/login/forgotten/sent")
}

func resetSent(r *web.Request) error { return r.Render("resetsent", nil) }

// tokenPage is what pages reset and address show.
type tokenPage struct {
	Token, Person, Address string
}

// lateReset is the page for a link that serves no more.
func lateReset(err error) error {
	if errors.Is(err, login.ErrTicket) {
		return web.Fail(http.StatusGone, "reset.late")
	}
	return err
}

func showReset(r *web.Request) error {
	p, err := r.Login.ResetFor(r.Context(), r.Query("token"))
	if err != nil {
		return lateReset(err)
	}
	return r.Render("reset", tokenPage{Token: r.Query("token"), Person: p.Name})
}

func reset(r *web.Request) error {
	token, password := r.Form.Value("token"), r.Form.Secret("password")
	p, err := r.Login.ResetFor(r.Context(), token)
	if err != nil {
		return lateReset(err)
	}
	if password != r.Form.Value("repeat") {
		r.Form.Fail("repeat", "password.different")
	}
	if r.Form.OK() {
		_, err := r.Login.Reset(r.Context(), token, password)
		if err := takePassword(r.Form, err); err != nil {
			return lateReset(err)
		}
	}
	if !r.Form.OK() {
		return r.Render("reset", tokenPage{Token: token, Person: p.Name})
	}
	r.Sessions.ClearCookie(r.W)
	return r.Done("/portal/login?to="+url.QueryEscape("/portal/"), "reset.done")
}

func sendConfirm(r *web.Request) error {
	if err := sendConfirmTo(r, r.Person.OutsideMail); err != nil {
		return err
	}
	if !r.Form.OK() {
		return showMe(r)
	}
	return r.Done("/portal/me", "me.confirm.sent", "mail", r.Person.OutsideMail)
}

// sendConfirmTo sends the visitor's address a link by which she confirms it.
func sendConfirmTo(r *web.Request, address string) error {
	p := r.Person
	p.OutsideMail = address
	err := r.Login.SendConfirm(r.Context(), p)
	var wait *login.WaitError
	switch {
	case errors.Is(err, login.ErrNoMail):
		r.Form.Fail("", "me.confirm.nomail")
	case errors.As(err, &wait):
		r.Status = http.StatusTooManyRequests
		r.Form.Fail("", "me.confirm.often")
	default:
		return err
	}
	return nil
}

// showAddress has a button: programs that look through mail open links, but press nothing.
func showAddress(r *web.Request) error {
	p, err := r.Login.ConfirmFor(r.Context(), r.Query("token"))
	if err != nil {
		return lateReset(err)
	}
	return r.Render("address", tokenPage{r.Query("token"), p.Display, p.OutsideMail})
}

func confirmAddress(r *web.Request) error {
	if err := r.Login.Confirm(r.Context(), r.Form.Value("token")); err != nil {
		return lateReset(err)
	}
	return r.Render("addressed", nil)
}
