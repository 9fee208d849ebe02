package login

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"allotment/portal/session"
	"allotment/portal/store"
)

// ErrNoPasskeys says that a browser cannot use passkeys at the portal's address: it is a bare IP address, or not by HTTPS.
var ErrNoPasskeys = errors.New("passkeys need the portal to have a host name and HTTPS")

const (
	mostPasskeys = 20
	maxLabel     = 60 // characters
)

// ceremony is a registration of or a login by a passkey that has begun.
type ceremony struct {
	person string // who registers
	origin string
	data   webauthn.SessionData
}

// Origin is the portal's scheme and host as the visitor sees it.
func (l *Login) Origin(r *http.Request) string {
	c := l.Config()
	switch {
	case c.Origin != "":
		return c.Origin
	case c.Secure || r.Header.Get("X-Forwarded-Proto") == "https": // which the gateway says
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// PasskeysPossible says whether browsers can use passkeys at an origin.
func PasskeysPossible(origin string) bool {
	_, err := relyingParty(origin)
	return err == nil
}

// relyingParty is the host name that passkeys of an origin are for (WebAuthn 3 section 4).
func relyingParty(origin string) (string, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return "", ErrNoPasskeys
	}
	host := session.Host(u.Host)
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return "", ErrNoPasskeys
	}
	if u.Scheme != "https" && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return "", ErrNoPasskeys
	}
	return host, nil
}

func (l *Login) webauthn(origin string) (*webauthn.WebAuthn, error) {
	rp, err := relyingParty(origin)
	if err != nil {
		return nil, err
	}
	return webauthn.New(&webauthn.Config{RPID: rp, RPDisplayName: l.Config().Domain, RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationPreferred}})
}

// BeginPasskey begins to register a passkey of a person. The options are for navigator.credentials.create.
func (l *Login) BeginPasskey(ctx context.Context, person, origin string) (
	options json.RawMessage, ticket string, err error) {
	w, err := l.webauthn(origin)
	if err != nil {
		return nil, "", err
	}
	p, err := l.Directory.Person(ctx, person)
	if err != nil {
		return nil, "", fmt.Errorf("cannot begin a passkey: %w", err)
	}
	if err := l.change(p.Name, func(f *factors) error { // makes the handle, too
		if len(f.Passkeys) >= mostPasskeys {
			return fmt.Errorf("%q has %d passkeys already", p.Name, mostPasskeys)
		}
		return nil
	}); err != nil {
		return nil, "", err
	}
	u, err := l.user(p.Name, p.Display, w.Config.RPID)
	if err != nil {
		return nil, "", err
	}
	creation, data, err := w.BeginRegistration(u,
		webauthn.WithExclusions(webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors()))
	if err != nil {
		return nil, "", fmt.Errorf("cannot begin a passkey: %w", err)
	}
	options, err = json.Marshal(creation)
	return options, l.creating.Put(ceremony{p.Name, origin, *data}), err
}

func (l *Login) user(name, display, rp string) (*user, error) {
	f, err := l.factors(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the passkeys of %q: %w", name, err)
	}
	return &user{name, display, f, rp}, nil
}

// FinishPasskey keeps the passkey that a browser has made, whose answer is JSON (PublicKeyCredential.toJSON).
func (l *Login) FinishPasskey(ctx context.Context, person, ticket, label string, response []byte) (Passkey, error) {
	c, ok := l.creating.Take(ticket)
	if !ok || c.person != person {
		return Passkey{}, ErrTicket
	}
	w, err := l.webauthn(c.origin)
	if err != nil {
		return Passkey{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Passkey{}, refused("passkey", err)
	}
	u, err := l.user(person, "", w.Config.RPID)
	if err != nil {
		return Passkey{}, err
	}
	credential, err := w.CreateCredential(u, c.data, parsed)
	if err != nil {
		return Passkey{}, refused("passkey", err)
	}
	k := passkey{Label: shorten(label), RP: w.Config.RPID, Created: l.Now().UTC(), Credential: *credential}
	if err := l.keep(person, k); err != nil {
		return Passkey{}, err
	}
	l.tell(ctx, person, "passkey.added", map[string]string{"label": k.Label})
	return k.shown(), l.record(person, "passkey.added", person, map[string]string{"label": k.Label})
}

// keep adds a passkey, unless anybody has it (WebAuthn 3 section 7.1, step 26).
func (l *Login) keep(person string, k passkey) error {
	taken := false
	err := l.DB.View(func(tx *store.Tx) error {
		return allFactors.All(tx, "", func(_ string, f factors) bool {
			for i := range f.Passkeys {
				taken = taken || f.Passkeys[i].id() == k.id()
			}
			return !taken
		})
	})
	if err == nil && taken {
		err = errors.New("it is registered already")
	}
	if err == nil {
		err = l.change(person, func(f *factors) error { f.Passkeys = append(f.Passkeys, k); return nil })
	}
	if err != nil {
		return fmt.Errorf("cannot keep the passkey: %w", err)
	}
	return nil
}

// BeginPasskeyLogin begins a login by whichever passkey the visitor has. The options are for navigator.credentials.get.
func (l *Login) BeginPasskeyLogin(origin string) (options json.RawMessage, ticket string, err error) {
	w, err := l.webauthn(origin)
	if err != nil {
		return nil, "", err
	}
	assertion, data, err := w.BeginDiscoverableLogin()
	if err != nil {
		return nil, "", fmt.Errorf("cannot begin a login by passkey: %w", err)
	}
	options, err = json.Marshal(assertion)
	return options, l.asking.Put(ceremony{"", origin, *data}), err
}

// FinishPasskeyLogin says who a browser has logged in by a passkey, from its answer in JSON.
func (l *Login) FinishPasskeyLogin(ctx context.Context, ticket string, response []byte) (Outcome, error) {
	c, ok := l.asking.Take(ticket)
	if !ok {
		return Outcome{}, ErrTicket
	}
	w, err := l.webauthn(c.origin)
	if err != nil {
		return Outcome{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Outcome{}, refused("login", err)
	}
	var u *user
	_, credential, err := w.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		u, err = l.byHandle(handle, w.Config.RPID)
		return u, err
	}, c.data, parsed)
	if err != nil {
		return Outcome{}, refused("login", err)
	}
	if credential.Authenticator.CloneWarning {
		l.tell(ctx, u.name, "passkey.cloned", nil)
		return Outcome{}, errors.Join(ErrRefused, l.record("", "passkey.cloned", u.name, nil))
	}
	if p, err := l.Directory.Person(ctx, u.name); err != nil {
		return Outcome{}, fmt.Errorf("cannot log in by passkey: %w", err)
	} else if !p.Active {
		return Outcome{}, ErrRefused
	}
	return Outcome{Person: u.name, Strength: session.Passkey}, l.used(u.name, credential)
}

// byHandle is the person whom a passkey knows by handle.
func (l *Login) byHandle(handle []byte, rp string) (*user, error) {
	var name string
	err := l.DB.View(func(tx *store.Tx) (err error) {
		name, err = handles.Get(tx, hex.EncodeToString(handle))
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.user(name, "", rp)
}

// used keeps what a login has changed in a passkey: its count of signatures above all.
func (l *Login) used(person string, credential *webauthn.Credential) error {
	return l.change(person, func(f *factors) error {
		for i := range f.Passkeys {
			if k := &f.Passkeys[i]; string(k.Credential.ID) == string(credential.ID) {
				k.Credential, k.Used = *credential, l.Now().UTC()
				return nil
			}
		}
		return ErrRefused
	})
}

// refused is ErrRefused with what the library found, for a log.
func refused(what string, err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.DevInfo != "" {
		return fmt.Errorf("cannot accept the %s: %w (%w: %s)", what, ErrRefused, err, e.DevInfo)
	}
	return fmt.Errorf("cannot accept the %s: %w (%w)", what, ErrRefused, err)
}

// shorten is a label of a sensible length.
func shorten(label string) string {
	label = strings.Join(strings.Fields(label), " ")
	for utf8.RuneCountInString(label) > maxLabel {
		_, size := utf8.DecodeLastRuneInString(label)
		label = label[:len(label)-size]
	}
	return label
}
