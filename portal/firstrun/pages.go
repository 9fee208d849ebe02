package firstrun

import (
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"allotment/api"
	"allotment/portal/qr"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

const root = "/portal/first/"

// Section is the pages. They have no link in the menu: the first officer is led there.
func (s *Service) Section() web.Section {
	open := func(method, path, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: root + path, Access: api.Public, Does: does, Handle: f, FirstRun: true}
	}
	officer := func(method string, step Step, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: root + string(step), Access: api.Officer, Does: does, Handle: f}
	}
	return web.Section{Name: "firstrun", Files: files, Routes: []web.Route{
		open("GET", "{$}", "the step of the first run that is next", s.start),
		open("POST", "claim", "enter the claim code", s.claim),
		open("GET", "officer", "who the first officer is", s.officer),
		open("POST", "officer", "make the first officer", s.makeOfficer),
		officer("GET", StepRecovery, "how the officer gets back in", s.recovery),
		officer("POST", StepRecovery, "print codes, or go on", s.setRecovery),
		officer("GET", StepSecond, "a second officer", s.second),
		officer("POST", StepSecond, "invite or appoint a second officer", s.setSecond),
		officer("GET", StepOrganisation, "what the organisation is", s.organisation),
		officer("POST", StepOrganisation, "name the organisation and make its groups", s.setOrganisation),
		officer("GET", StepModules, "what the server shall do", s.modules),
		officer("POST", StepModules, "switch modules on and off", s.setModules),
		officer("GET", StepDomain, "the organisation's domain", s.domain),
		officer("POST", StepDomain, "choose a domain, or later", s.setDomain),
		officer("GET", StepBackup, "where backups go", s.backup),
		officer("POST", StepBackup, "go on, or later", s.setBackup),
		officer("GET", StepInvite, "invite members", s.invite),
		officer("POST", StepInvite, "make an invitation, or go on", s.setInvite),
		officer("GET", StepDone, "what has come of it", s.done),
		officer("POST", StepDone, "end the first run", s.end),
	}}
}

// cookieName is that of the cookie with the token of who has entered the claim code.
func (s *Service) cookieName() string {
	if s.deps.Config().Secure {
		return "__Host-portal-firstrun"
	}
	return "portal-firstrun"
}

func (s *Service) token(r *http.Request) string {
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return ""
	}
	return c.Value
}

func (s *Service) setToken(r *web.Request, token string, seconds int) {
	http.SetCookie(r.W, &http.Cookie{Name: s.cookieName(), Value: token, Path: "/", MaxAge: seconds,
		Secure: s.deps.Config().Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// view is what every page of a step shows besides its own.
type view struct {
	Step     Step
	State    State
	Steps    []stepView
	Number   int
	Previous Step // empty: there is none that can be shown
	Data     any
}

// stepView is a step in the list of all.
type stepView struct {
	Step      Step
	Done      bool
	Later     bool
	Current   bool
	Reachable bool
}

// show renders the page of a step.
func (s *Service) show(r *web.Request, step Step, data any) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	v := view{Step: step, State: st, Data: data, Number: slices.Index(Steps(), step) + 1}
	for i, x := range Steps() {
		v.Steps = append(v.Steps, stepView{x, st.IsDone(x), slices.Contains(st.Later, x), x == step, st.Reachable(x)})
		if x == step && i > 0 && st.Reachable(Steps()[i-1]) {
			v.Previous = Steps()[i-1]
		}
	}
	return r.Render(string(step), v)
}

// next leads to the step after one that was finished.
func (s *Service) next(r *web.Request, step Step) error { return r.Redirect(root + string(Next(step))) }

// start leads to where the first run stands; to the question for the code where nobody has entered it here.
func (s *Service) start(r *web.Request) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	switch {
	case !s.Unclaimed() && !r.Officer:
		return r.Redirect("/portal/")
	case !s.Unclaimed():
		return r.Redirect(root + string(st.Current()))
	case s.Admitted(s.token(r.HTTP)):
		return r.Redirect(root + string(StepOfficer))
	}
	if code := r.HTTP.URL.Query().Get("code"); len(code) <= web.Line { // of the QR code on the box's screen
		r.Form.Set("code", code)
	}
	return s.show(r, StepClaim, nil)
}

func (s *Service) claim(r *web.Request) error {
	code := r.Form.Required("code", web.Line)
	if !r.Form.OK() {
		return s.show(r, StepClaim, nil)
	}
	token, err := s.Claim(r.Context(), code)
	var wait *WaitError
	switch {
	case errors.Is(err, ErrWrong):
		r.Form.Fail("code", "firstrun.claim.wrong")
	case errors.Is(err, ErrLocked):
		r.Form.Fail("", "firstrun.claim.locked")
	case errors.Is(err, ErrNoCode):
		r.Form.Fail("", "firstrun.claim.none")
	case errors.Is(err, ErrClaimed):
		return r.Redirect("/portal/")
	case errors.As(err, &wait):
		r.W.Header().Set("Retry-After", "5")
		r.Status = http.StatusTooManyRequests
		r.Form.Fail("", "firstrun.claim.wait", "n", int(wait.Left.Seconds()+1))
	case err != nil:
		return &web.Problem{Status: http.StatusServiceUnavailable, Key: "firstrun.problem.box", Err: err}
	}
	if !r.Form.OK() {
		return s.show(r, StepClaim, nil)
	}
	s.setToken(r, token, int(claimLasts.Seconds()))
	return r.Redirect(root + string(StepOfficer))
}

// admitted leads away who has not entered the code, or comes after there is an officer.
func (s *Service) admitted(r *web.Request) (bool, error) {
	if s.Unclaimed() && s.Admitted(s.token(r.HTTP)) {
		return true, nil
	}
	return false, r.Redirect(root)
}

// offices are those that the first officer, or the second, can hold.
func offices(r *web.Request) []web.Option {
	var all []web.Option
	for _, name := range []string{"chair", "treasurer", "secretary"} {
		all = append(all, web.Option{Value: name, Label: r.T("firstrun.office." + name)})
	}
	return all
}

func (s *Service) officer(r *web.Request) error {
	if ok, err := s.admitted(r); !ok {
		return err
	}
	st, err := s.State()
	if err != nil {
		return err
	}
	for field, value := range map[string]string{"given": st.Officer.Given, "family": st.Officer.Family, "name": st.Officer.Name,
		"mail": st.Officer.OutsideMail, "office": st.Officer.Office} {
		r.Form.Set(field, value)
	}
	return s.show(r, StepOfficer, offices(r))
}

// shown is a link and its drawing. A link of a portal that has no name yet is by the address that the visitor used.
func shown(r *web.Request, link string) (string, template.URL, error) {
	if link == "" {
		return "", "", nil
	}
	if u, err := url.Parse(link); err == nil && r.Config().Origin == "" {
		link = r.Origin() + u.RequestURI()
	}
	b, err := qr.PNG(link, 320)
	if err != nil {
		return "", "", err
	}
	return link, template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b)), nil
}
