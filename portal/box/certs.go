package box

import (
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/gateway"
	"allotment/portal/web"
)

// soonOver is how little time a certificate has left when nobody must wait any longer for its renewal, which begins earlier.
const soonOver = 14 * 24 * time.Hour

// certView is how it stands with a certificate, in the visitor's words.
type certView struct {
	Names string
	Class string // of a lamp; empty: nothing to worry about yet
	Text  string
	Why   string    // what is wrong; empty: nothing
	Do    string    // what to do about it
	Error string    // in the program's own words
	Again time.Time // when the box tries again
}

// certsView is what pages show of certificates.
type certsView struct {
	All       []certView
	Authority string // fingerprint of the box's own
	Own       bool   // visitors of a name see the box's own
}

// certsOf leaves out names that nobody needs and that do not lead to the box.
func certsOf(r *web.Request, n api.Network) certsView {
	v := certsView{Authority: n.Authority, Own: len(n.Certificates) == 0}
	for _, c := range n.Certificates {
		if c.Until.IsZero() && c.Why == gateway.WhyElsewhere && !needed(n, c) {
			continue
		}
		v.All, v.Own = append(v.All, certOf(r, n, c)), v.Own || c.Until.IsZero()
	}
	return v
}

// needed tells whether a certificate has a name that the box does not work without. An address is none: behind a router the
// authority cannot reach all of them.
func needed(n api.Network, c api.Certificate) bool {
	return slices.ContainsFunc(n.Names, func(x api.Name) bool { return !x.Optional && slices.Contains(c.Names, x.Host) })
}

func certOf(r *web.Request, n api.Network, c api.Certificate) certView {
	v := certView{Names: strings.Join(c.Names, ", "), Class: "good", Text: r.T("box.certs.good", "date", r.Moment(c.Until))}
	switch {
	case c.Until.IsZero() && c.Failures == 0:
		v.Class, v.Text = "", r.T("box.certs.begun")
	case c.Until.IsZero():
		v.Class, v.Text = "warn", r.T("box.certs.none")
	case !r.Now.Before(c.Until):
		v.Class, v.Text = "bad", r.T("box.certs.over", "date", r.Moment(c.Until))
	case c.Failures > 0 && c.Until.Sub(r.Now) < soonOver:
		v.Class = "warn"
	}
	if v.Class != "good" && !needed(n, c) {
		v.Class = ""
	}
	if c.Failures > 0 {
		why := "box.certs.why." + c.Why
		v.Why, v.Do = r.Or(why, r.T("box.certs.why.refused")), r.Or(why+".do", r.T("box.certs.why.refused.do"))
		v.Error, v.Again = c.Error, c.Again
	}
	return v
}

// lamps is what the overview and the health of the box say of certificates: one line, where somebody should look at one.
func (v certsView) lamps(r *web.Request) []lamp {
	l := lamp{Title: r.T("box.certs.title"), Path: root + "dns#certificates", Do: r.T("box.lamp.look")}
	var names []string
	for _, c := range v.All {
		if c.Class == "warn" || c.Class == "bad" {
			names = append(names, c.Names)
			if l.Class != "bad" {
				l.Class = c.Class
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	l.Text = r.T("box.certs.lamp", "names", strings.Join(names, ", "))
	return []lamp{l}
}
