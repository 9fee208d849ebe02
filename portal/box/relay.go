package box

import (
	"cmp"
	"errors"
	"net/http"

	"allotment/portal/mail"
	"allotment/portal/store"
	"allotment/portal/web"
)

// relay is the mail server that takes the organisation's mail.
func (p *Pages) relay() mail.Relay { return mail.StoredRelay(p.deps.DB) }

// mailView is what the page of outgoing mail shows.
type mailView struct {
	Relay   mail.Relay
	Pending []mail.Item
	Failed  []mail.Item
	TLS     []web.Option
}

// itemsView are mails for the part of the page that shows them.
type itemsView struct {
	View  web.View
	Items []mail.Item
}

// With puts mails and the page together.
func (mailView) With(v web.View, items []mail.Item) itemsView { return itemsView{v, items} }

func (p *Pages) mailPage(r *web.Request) error {
	relay := p.relay()
	r.Form.Set("host", relay.Host)
	r.Form.Set("port", textOf(cmp.Or(relay.Port, 587)))
	r.Form.Set("tls", cmp.Or(relay.TLS, mail.StartTLS))
	r.Form.Set("user", relay.User)
	r.Form.Set("from", relay.From)
	return p.showMail(r)
}

func (p *Pages) showMail(r *web.Request) error {
	v := mailView{Relay: p.relay()}
	var err error
	if v.Pending, err = p.mail.Pending(); err != nil {
		return err
	}
	if v.Failed, err = p.mail.Failed(); err != nil {
		return err
	}
	for _, kind := range []string{mail.StartTLS, mail.TLS, mail.NoTLS} {
		v.TLS = append(v.TLS, web.Option{Value: kind, Label: r.T("box.mail.tls." + kind)})
	}
	return r.Render("mail", v)
}

func (p *Pages) setRelay(r *web.Request) error {
	old := p.relay()
	if r.Form.Value("none") == "yes" {
		return p.keepRelay(r, mail.Relay{})
	}
	relay := mail.Relay{
		Host: r.Form.Required("host", web.Line), Port: r.Form.Number("port", 1, 65535),
		TLS:  r.Form.Choice("tls", mail.StartTLS, mail.TLS, mail.NoTLS),
		User: r.Form.Text("user", web.Line), From: r.Form.Mail("from"), FromName: r.Organisation(),
	}
	if relay.From == "" && r.Form.Error("from") == "" {
		r.Form.Fail("from", "form.required")
	}
	if relay.User != "" {
		relay.Password = old.Password // which is never shown; a new server must not get it
		if r.Form.Value("password") != "" || relay.Host != old.Host || relay.User != old.User || old.Password == "" {
			relay.Password = r.Form.Secret("password")
		}
	}
	if !r.Form.OK() {
		return p.showMail(r)
	}
	return p.keepRelay(r, relay)
}

func (p *Pages) keepRelay(r *web.Request, relay mail.Relay) error {
	if err := relay.Check(); err != nil {
		r.Form.Fail("", "box.mail.wrong", "text", web.Said(err.Error()))
		return p.showMail(r)
	}
	if err := r.DB.Update(func(tx *store.Tx) error { return mail.SetRelay(tx, relay) }); err != nil {
		return err
	}
	r.Record("box.relay", relay.Host, nil)
	p.mail.Wake()
	return r.Done(root+"mail", "box.mail.saved")
}

func (p *Pages) testMail(r *web.Request) error {
	to := r.Person.Address()
	if to == "" {
		return web.Fail(http.StatusConflict, "box.mail.noaddress")
	}
	m := mail.Message{To: to, Subject: r.T("box.mail.test.subject", "name", r.Organisation()),
		Text: r.T("box.mail.test.text", "name", r.Organisation()), Language: r.Language}
	if err := p.mail.Send(r.HTTP.Context(), m); err != nil {
		return err
	}
	r.Record("box.mail-test", to, nil)
	return r.Done(root+"mail", "box.mail.test.sent", "to", to)
}

// withMail does something with the mail that the path names.
func withMail(r *web.Request, f func(id string) error, kind, key string) error {
	err := f(r.Path("id"))
	if errors.Is(err, mail.ErrNotFound) {
		return web.ErrNotFound
	}
	if err != nil {
		return err
	}
	r.Record(kind, "", nil)
	return r.Done(root+"mail", key)
}

func (p *Pages) retryMail(r *web.Request) error {
	return withMail(r, p.mail.Retry, "box.mail-retry", "box.mail.retried")
}

func (p *Pages) removeMail(r *web.Request) error {
	return withMail(r, p.mail.Remove, "box.mail-removed", "box.mail.removed")
}
