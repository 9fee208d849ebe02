package box

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/store"
	"allotment/portal/web"
)

// internalDomain is that of an organisation that has none yet.
const internalDomain = "allotment.internal"

// domainSetting is the name of the organisation's setting.
const domainSetting = "domain"

// Wanted is a domain that the organisation wants. The box takes it over only once its names lead to the box: with a domain
// that leads nowhere, nobody would reach the portal any more.
type Wanted struct {
	Domain string    `json:"domain"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
}

const wantedKey = "domain"

var wishes = store.NewBucket[Wanted]("box-domain")

// Wanted is the domain that is waited for; its Domain is empty where none is.
func (p *Pages) Wanted() (Wanted, error) {
	var w Wanted
	err := p.deps.DB.View(func(tx *store.Tx) (err error) {
		w, err = wishes.Get(tx, wantedKey)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return Wanted{}, nil
	}
	return w, err
}

// domainForm is a name of at least two labels (RFC 1035 section 2.3.1), in lower case.
var domainForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$`)

// ReadDomain reads a field with a domain; people write addresses of pages there, too.
func ReadDomain(f *web.Form, field string) string {
	s := strings.ToLower(f.Required(field, web.Line))
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	s = strings.TrimSuffix(strings.TrimPrefix(s, "www."), ".")
	if f.Error(field) == "" && (len(s) > 200 || !domainForm.MatchString(s) || strings.HasSuffix(s, ".internal")) {
		f.Fail(field, "box.dns.noname")
	}
	return s
}

// Want notes the domain that the visitor wants, and has it looked for at once.
func (p *Pages) Want(r *web.Request, domain string) error {
	w := Wanted{Domain: domain, By: r.Person.Name, Since: r.Now.UTC()}
	if err := r.DB.Update(func(tx *store.Tx) error { return wishes.Put(tx, wantedKey, w) }); err != nil {
		return err
	}
	r.Record("box.domain-wanted", domain, nil)
	return nil
}

func (p *Pages) forgetWanted() error {
	return p.deps.DB.Update(func(tx *store.Tx) error { return wishes.Delete(tx, wantedKey) })
}

// network is how the box is reached, by the wanted domain if there is one.
func (p *Pages) network(ctx context.Context) (api.Network, Wanted, error) {
	n, err := p.deps.Box.Network(ctx)
	if err != nil {
		return n, Wanted{}, err
	}
	w, err := p.Wanted()
	if err != nil || w.Domain == "" {
		return n, w, err
	}
	return renamed(n, w.Domain), w, nil
}

// renamed is the network as it would be with another domain.
func renamed(n api.Network, domain string) api.Network {
	rename := func(host string) string {
		if host == n.Domain {
			return domain
		}
		if head, ok := strings.CutSuffix(host, "."+n.Domain); ok {
			return head + "." + domain
		}
		return host
	}
	out := n
	out.Domain, out.Names, out.Records = domain, nil, nil
	for _, x := range n.Names {
		x.Host = rename(x.Host)
		out.Names = append(out.Names, x)
	}
	for _, x := range n.Records {
		x.Host = rename(x.Host)
		if v := strings.TrimSuffix(x.Value, n.Domain+"."); v != x.Value {
			x.Value = v + domain + "."
		}
		out.Records = append(out.Records, x)
	}
	return out
}

// Leads tells whether all names lead to the box; what modules need besides may follow.
func (r DNSReport) Leads() bool {
	some := false
	for _, x := range r.Results {
		if (x.Type == "A" || x.Type == "AAAA") && !x.Optional {
			if some = true; x.Verdict != DNSRight {
				return false
			}
		}
	}
	return some
}

// lookEvery is how often the box looks whether a wanted domain leads to it.
const lookEvery = 5 * time.Minute

// awaitDomain takes a wanted domain over once it leads to the box, until ctx ends.
func (p *Pages) awaitDomain(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := p.tryDomain(ctx); err != nil {
			p.deps.Log.Warn("cannot take the domain over", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Pages) tryDomain(ctx context.Context) error {
	w, err := p.Wanted()
	if err != nil || w.Domain == "" {
		return err
	}
	n, w, err := p.network(ctx)
	if err != nil || !p.names.Check(ctx, n).Leads() {
		return err
	}
	return p.takeDomain(api.WithActor(ctx, w.By), w)
}

// takeDomain makes the wanted domain the organisation's.
func (p *Pages) takeDomain(ctx context.Context, w Wanted) error {
	if err := p.deps.Box.SetSettings(ctx, "", map[string]any{domainSetting: w.Domain}); err != nil {
		return err
	}
	return errors.Join(p.forgetWanted(), p.deps.Audit.Record(audit.Entry{Actor: w.By, Kind: "box.domain", Subject: w.Domain}))
}

// dnsView is what the page of names shows.
type dnsView struct {
	Network api.Network
	Wanted  Wanted // the domain that is waited for
	Report  DNSReport
	Running bool
	None    bool       // there is no domain, and none is wanted
	Next    *DNSResult // the first record that is to be made
	Left    int        // how many there are
	Wishes  []Wish     // where nothing is known yet
	Certs   certsView
}

func (p *Pages) dns(r *web.Request) error {
	n, w, err := p.network(ctx(r))
	if err != nil {
		return problem(err)
	}
	v := dnsView{Network: n, Wanted: w, Certs: certsOf(r, n), None: n.Domain == "" || n.Domain == internalDomain}
	if v.None {
		return r.Render("dns", v)
	}
	v.Report, v.Running = p.names.Report(ctx(r), n, r.Query("again") == "yes")
	if v.Running {
		r.W.Header().Set("Refresh", "3; url="+root+"dns")
	}
	if len(v.Report.Results) == 0 {
		v.Wishes = slices.DeleteFunc(Wishes(n), func(w Wish) bool { return w.Type == typeCAA && w.Module == "" })
	}
	for i := range v.Report.Results {
		if x := &v.Report.Results[i]; !x.Optional && (x.Verdict == DNSMissing || x.Verdict == DNSOther) {
			if v.Left++; v.Next == nil {
				v.Next = x
			}
		}
	}
	return r.Render("dns", v)
}

// setDomain notes a wanted domain, forgets it, or takes it over at once.
func (p *Pages) setDomain(r *web.Request) error {
	switch r.Form.Choice("what", "want", "forget", "take") {
	case "want":
		domain := ReadDomain(r.Form, "domain")
		if !r.Form.OK() {
			return p.dns(r)
		}
		if err := p.Want(r, domain); err != nil {
			return err
		}
		return r.Done(root+"dns", "box.dns.wanted", "domain", domain)
	case "forget":
		if err := p.forgetWanted(); err != nil {
			return err
		}
		r.Record("box.domain-forgotten", "", nil)
		return r.Done(root+"dns", "box.dns.forgotten")
	case "take":
		return p.takeNow(r)
	}
	return p.dns(r)
}

func (p *Pages) takeNow(r *web.Request) error {
	w, err := p.Wanted()
	if err != nil {
		return err
	}
	if w.Domain == "" || !r.Form.Checked("sure") {
		r.Form.Fail("sure", "box.dns.sure")
		return p.dns(r)
	}
	about := About{Key: "settings", Title: r.T("box.settings.saving", "name", w.Domain), Back: root + "dns"}
	done, err := p.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		return p.takeDomain(ctx, w)
	})
	if !done || err != nil {
		return problem(err)
	}
	return r.Redirect(fmt.Sprintf("%sdns?again=yes", root))
}
