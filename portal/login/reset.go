package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/session"
)

// Whoever has forgotten her password gets a link for a new one by mail: to her address elsewhere, if she has shown that it
// is hers by a link that was sent there. Who asks for one learns nothing: what there is to do is done after the answer.

// ErrNoMail says that the box cannot send mail.
var ErrNoMail = errors.New("there is no way to send mail")

// Paths of the pages that mails lead to, with ?token=.
const (
	PathReset   = "/portal/login/reset"
	PathAddress = "/portal/address"
)

// linkTime is how long the link in a mail is good.
const linkTime = time.Hour

// How often a client may ask for a link, and how often a person is sent one.
var (
	askRule  = rule{free: 6, first: time.Minute, most: 15 * time.Minute}
	linkRule = rule{free: 3, first: 10 * time.Minute, most: time.Hour}
)

// sendTime bounds what is done after the answer; sendsAtOnce how much of it.
const (
	sendTime    = time.Minute
	sendsAtOnce = 8
)

// MailWorks says whether links can be sent.
func (l *Login) MailWorks() bool { return l.CanMail != nil && l.CanMail() }

// SendReset sends whoever name, or a mail address, means a link for a new password, if there is such a person and she can
// have one. That is the same to the visitor, who may get ErrNoMail or a *WaitError whoever is meant.
func (l *Login) SendReset(r *http.Request, name string) error {
	if !l.MailWorks() {
		return ErrNoMail
	}
	if err := l.guesses.count("asks "+network(session.Client(r)), askRule); err != nil {
		return err
	}
	select {
	case l.sends <- struct{}{}:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), sendTime)
	l.sending.Go(func() {
		defer func() { cancel(); <-l.sends }()
		if err := l.sendReset(ctx, name); err != nil {
			l.Log.Error("cannot send a link for a new password", "error", err)
		}
	})
	return nil
}

// Wait returns when nothing is left to do of what SendReset began.
func (l *Login) Wait() { l.sending.Wait() }

func (l *Login) sendReset(ctx context.Context, name string) error {
	p, err := l.find(ctx, strings.ToLower(strings.TrimSpace(name)))
	if errors.Is(err, ErrRefused) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := l.factors(p.Name)
	if err != nil || !p.Active || !f.confirms(p.OutsideMail) || l.guesses.count("reset "+p.Name, linkRule) != nil {
		return err
	}
	return errors.Join(l.sendLink(ctx, p, f, "password.reset", PathReset), l.record("", "password.asked", p.Name, nil))
}

// sendLink sends a person whose factors are f a link to the page at path.
func (l *Login) sendLink(ctx context.Context, p directory.Person, f factors, kind, path string) error {
	token, err := l.newLink(link{Purpose: path, Person: p.Name, Address: p.OutsideMail, Changed: f.Changed})
	if err != nil {
		return err
	}
	return l.Send(ctx, p, kind, l.Now().Add(linkTime).UTC(),
		map[string]string{"link": l.Place() + path + "?" + url.Values{"token": {token}}.Encode()})
}

// confirms says whether an address is the one that the person has shown to be hers.
func (f *factors) confirms(address string) bool {
	return address != "" && strings.EqualFold(f.Address, address)
}

// good is the person whom a link was sent to, if it serves still: her account is active, and neither her address nor her
// password have changed. Else ErrTicket.
func (l *Login) good(ctx context.Context, k link) (directory.Person, factors, error) {
	p, err := l.Directory.Person(ctx, k.Person)
	if errors.Is(err, directory.ErrNotFound) {
		err = ErrTicket
	}
	if err != nil {
		return directory.Person{}, factors{}, err
	}
	f, err := l.factors(p.Name)
	if err == nil && (!p.Active || !strings.EqualFold(p.OutsideMail, k.Address) || !f.Changed.Equal(k.Changed)) {
		err = ErrTicket
	}
	return p, f, err
}

// ResetFor is the person whose link for a new password has the token. ErrTicket: it serves no more.
func (l *Login) ResetFor(ctx context.Context, token string) (directory.Person, error) {
	k, err := l.findLink(token, PathReset)
	if err != nil {
		return directory.Person{}, err
	}
	p, f, err := l.good(ctx, k)
	if err == nil && !f.confirms(k.Address) {
		err = ErrTicket
	}
	return p, err
}

// Reset gives the person whose link has the token a new password. All her sessions end, and she must log in with it. If she
// is an officer, the others are told.
func (l *Login) Reset(ctx context.Context, token, password string) (directory.Person, error) {
	l.resetting.Lock() // each link serves once
	defer l.resetting.Unlock()
	p, err := l.ResetFor(ctx, token)
	if err != nil {
		return p, err
	}
	if err := CheckPassword(p, password); err != nil {
		return p, err
	}
	others, err := l.otherOfficers(ctx, p.Name)
	if err != nil { // nobody is left untold: the link serves still
		return p, err
	}
	if err := l.setPassword(ctx, p.Name, password); err != nil {
		return p, err
	}
	l.guesses.forgive(p.Name)
	l.tell(ctx, p.Name, "password.changed", nil)
	return p, errors.Join(l.useUp(token), l.record(p.Name, "password.reset", p.Name, nil), l.Sessions.EndAll(p.Name),
		l.tellOfficers(ctx, others, p))
}

// otherOfficers are the officers but her, if she is one.
func (l *Login) otherOfficers(ctx context.Context, person string) ([]directory.Person, error) {
	all, err := l.Directory.Officers(ctx, l.Now())
	others := slices.DeleteFunc(slices.Clone(all), func(o directory.Person) bool { return o.Name == person })
	if len(others) == len(all) {
		return nil, err
	}
	return others, err
}

// tellOfficers tells officers that one of them has a new password by mail. It needs no directory, which may be away by now.
func (l *Login) tellOfficers(ctx context.Context, officers []directory.Person, p directory.Person) error {
	var errs []error
	for _, o := range officers {
		if o.OutsideMail = o.Address(); o.OutsideMail != "" {
			errs = append(errs, l.Send(ctx, o, "officer.reset", time.Time{}, map[string]string{"officer": p.Display}))
		}
	}
	return errors.Join(errs...)
}

// AddressConfirmed says whether a person has shown that her address elsewhere is hers.
func (l *Login) AddressConfirmed(p directory.Person) (bool, error) {
	f, err := l.factors(p.Name)
	return f.confirms(p.OutsideMail), err
}

// SendConfirm sends a link to a person's address elsewhere, by which she shows that it is hers: ErrNoMail, or a *WaitError.
func (l *Login) SendConfirm(ctx context.Context, p directory.Person) error {
	if !l.MailWorks() || p.OutsideMail == "" {
		return ErrNoMail
	}
	if err := l.guesses.count("confirm "+p.Name, linkRule); err != nil {
		return err
	}
	f, err := l.factors(p.Name)
	if err != nil {
		return err
	}
	return l.sendLink(ctx, p, f, "address.confirm", PathAddress)
}

// ConfirmFor is the person whose link to confirm her address has the token. ErrTicket: it serves no more.
func (l *Login) ConfirmFor(ctx context.Context, token string) (directory.Person, error) {
	k, err := l.findLink(token, PathAddress)
	if err != nil {
		return directory.Person{}, err
	}
	p, _, err := l.good(ctx, k)
	return p, err
}

// Confirm notes that the address that a link was sent to is the person's. The one that was hers before is told.
func (l *Login) Confirm(ctx context.Context, token string) error {
	p, err := l.ConfirmFor(ctx, token)
	if err != nil {
		return err
	}
	f, err := l.factors(p.Name)
	if err != nil {
		return err
	}
	err = errors.Join(l.useUp(token), l.KnowAddress(p.Name, p.OutsideMail), l.record(p.Name, "address.confirmed", p.Name, nil))
	if former := p; f.Address != "" && !f.confirms(p.OutsideMail) && err == nil {
		former.OutsideMail = f.Address
		err = l.Send(ctx, former, "address.changed", time.Time{}, nil)
	}
	return err
}

// KnowAddress notes that a person has used a link that was sent to an address, and to nobody else.
func (l *Login) KnowAddress(person, address string) error {
	return l.change(person, func(f *factors) error { f.Address = strings.ToLower(address); return nil })
}

// setPassword gives a person a new password. No link of before serves any more.
func (l *Login) setPassword(ctx context.Context, name, password string) error {
	if err := l.Directory.SetPassword(ctx, name, Normal(password)); err != nil {
		return err
	}
	return l.PasswordSet(name)
}

// PasswordSet notes that somebody else has just set a person's password.
func (l *Login) PasswordSet(name string) error {
	return l.change(name, func(f *factors) error { f.Changed = l.Now().UTC(); return nil })
}
