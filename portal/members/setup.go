package members

import (
	"encoding/json"
	"errors"
	"net/http"

	"allotment/portal/login"
	"allotment/portal/session"
	"allotment/portal/web"
)

// setUpPage is what page setup shows.
type setUpPage struct {
	Token, Person string
	Passkeys      bool // are possible, by this address
}

func showSetUp(r *web.Request) error {
	person, err := r.Onboard.SetUpFor(r.Context(), r.Query("token"))
	if err != nil {
		return lateLink(err)
	}
	return renderSetUp(r, r.Query("token"), person)
}

func renderSetUp(r *web.Request, token, person string) error {
	if !r.Form.Has("label") {
		r.Form.Set("label", session.Device(r.HTTP.UserAgent()))
	}
	return r.Render("setup", setUpPage{token, person, login.PasskeysPossible(r.Origin())})
}

// setUp gives a new member her first password and logs her in.
func setUp(r *web.Request) error {
	token, password := r.Form.Value("token"), r.Form.Secret("password")
	name, err := r.Onboard.SetUpFor(r.Context(), token)
	if err != nil {
		return lateLink(err)
	}
	proven, err := r.Onboard.ProvenMail(token)
	if err != nil {
		return lateLink(err)
	}
	if password != r.Form.Value("repeat") {
		r.Form.Fail("repeat", "password.different")
	}
	if r.Form.OK() {
		p, err := r.Directory.Person(r.Context(), name)
		if err != nil {
			return err
		}
		if err = login.CheckPassword(p, password); err == nil {
			_, err = r.Onboard.SetUp(r.Context(), token, login.Normal(password))
		}
		if err := takePassword(r.Form, err); err != nil {
			return lateLink(err)
		}
	}
	if !r.Form.OK() {
		return renderSetUp(r, token, name)
	}
	if err := r.Login.PasswordSet(name); err != nil {
		return err
	}
	return welcome(r, login.Outcome{Person: name, Strength: session.Password}, proven)
}

// welcome logs a new member in for the first time. The address that her link was sent to, and nobody else saw, is hers.
func welcome(r *web.Request, out login.Outcome, proven string) error {
	if proven != "" {
		if err := r.Login.KnowAddress(out.Person, proven); err != nil {
			return err
		}
	}
	if err := r.Sessions.EndAll(out.Person); err != nil {
		return err
	}
	if _, err := r.Login.Enter(r.W, r.HTTP, out); err != nil {
		return err
	}
	return r.Done("/portal/", "first.done")
}

// beginSetUpPasskey takes the form's fields in JSON, as the script of all pages sends them.
func beginSetUpPasskey(r *web.Request) error {
	var fields struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(r.HTTP.Body).Decode(&fields); err != nil {
		return &web.Problem{Status: http.StatusBadRequest, Key: "problem.form", Err: err}
	}
	person, err := r.Onboard.SetUpFor(r.Context(), fields.Token)
	if err != nil {
		return lateLink(err)
	}
	options, ticket, err := r.Login.BeginPasskey(r.Context(), person, r.Origin())
	return sendCeremony(r, options, ticket, err)
}

// setUpPasskey gives a new member a passkey, and no password, and logs her in.
func setUpPasskey(r *web.Request) error {
	f, token := r.Form, r.Form.Value("token")
	name, err := r.Onboard.SetUpFor(r.Context(), token)
	if err != nil {
		return lateLink(err)
	}
	proven, err := r.Onboard.ProvenMail(token)
	if err != nil {
		return lateLink(err)
	}
	label := f.Required("label", web.Line)
	if f.OK() {
		_, err = r.Onboard.SetUpWith(r.Context(), token, func(person string) error {
			_, err := r.Login.FinishPasskey(r.Context(), person, f.Value("ceremony"), label, []byte(f.Value("credential")))
			return err
		})
		if errors.Is(err, login.ErrRefused) || errors.Is(err, login.ErrTicket) {
			f.Fail("", "passkeys.refused")
		} else if err != nil {
			return lateLink(err)
		}
	}
	if !f.OK() {
		return renderSetUp(r, token, name)
	}
	return welcome(r, login.Outcome{Person: name, Strength: session.Passkey}, proven)
}
