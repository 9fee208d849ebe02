package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"

	"allotment/portal/directory"
	"allotment/portal/session"
)

// authenticator is a passkey in software (WebAuthn 3 section 6), with what a browser adds.
type authenticator struct {
	key    *ecdsa.PrivateKey
	id     []byte
	rp     string
	handle []byte
	count  uint32
	origin string // that the browser says it is at
	flags  byte
}

const (
	userPresent, userVerified, attested = 1, 4, 64
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (a *authenticator) data(flags byte, more []byte) []byte {
	rp := sha256.Sum256([]byte(a.rp))
	d := append(rp[:], flags)
	return append(binary.BigEndian.AppendUint32(d, a.count), more...)
}

func (a *authenticator) client(kind, challenge string) []byte {
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.origin, "crossOrigin": false})
	return b
}

// create answers the options of a registration.
func (a *authenticator) create(t *testing.T, options []byte) []byte {
	t.Helper()
	var o struct {
		PublicKey struct {
			Challenge string
			RP        struct{ ID string }
			User      struct{ ID string }
		}
	}
	err := json.Unmarshal(options, &o)
	if err == nil {
		a.handle, err = base64.RawURLEncoding.DecodeString(o.PublicKey.User.ID)
	}
	if err == nil {
		a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.rp, a.id = o.PublicKey.RP.ID, make([]byte, 16)
	rand.Read(a.id)
	x, y := make([]byte, 32), make([]byte, 32)
	a.key.X.FillBytes(x)
	a.key.Y.FillBytes(y)
	public, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: x, -3: y}) // COSE: EC2, ES256, P-256
	if err != nil {
		t.Fatal(err)
	}
	credential := append(make([]byte, 16), 0, byte(len(a.id))) // AAGUID, length
	credential = append(append(credential, a.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{},
		"authData": a.data(a.flags|attested, credential)})
	if err != nil {
		t.Fatal(err)
	}
	return a.answer(t, map[string]any{"attestationObject": b64(object),
		"clientDataJSON": b64(a.client("webauthn.create", o.PublicKey.Challenge))})
}

func (a *authenticator) answer(t *testing.T, response map[string]any) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"id": b64(a.id), "rawId": b64(a.id), "type": "public-key",
		"clientExtensionResults": map[string]any{}, "response": response})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// get answers the options of a login.
func (a *authenticator) get(t *testing.T, options []byte) []byte {
	t.Helper()
	var o struct{ PublicKey struct{ Challenge string } }
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	a.count++
	data, client := a.data(a.flags, nil), a.client("webauthn.get", o.PublicKey.Challenge)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(slices.Clone(data), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return a.answer(t, map[string]any{"authenticatorData": b64(data), "clientDataJSON": b64(client),
		"signature": b64(signature), "userHandle": b64(a.handle)})
}

func (p *portal) register(t *testing.T, person string) *authenticator {
	t.Helper()
	options, ticket, err := p.BeginPasskey(t.Context(), person, origin)
	if err != nil {
		t.Fatal(err)
	}
	a := &authenticator{origin: origin, flags: userPresent | userVerified}
	k, err := p.FinishPasskey(t.Context(), person, ticket, "  Anna's\n iPad ", a.create(t, options))
	if err != nil || k.Label != "Anna's iPad" || k.Host != "portal.ashwell.example" {
		t.Fatalf("%+v, error %v", k, err)
	}
	return a
}

func (p *portal) byPasskey(t *testing.T, a *authenticator) (Outcome, error) {
	t.Helper()
	options, ticket, err := p.BeginPasskeyLogin(origin)
	if err != nil {
		t.Fatal(err)
	}
	return p.FinishPasskeyLogin(t.Context(), ticket, a.get(t, options))
}

func (p *portal) testPasskeys(t *testing.T) {
	a := p.register(t, "anna")
	for range 2 {
		if out, err := p.byPasskey(t, a); err != nil || out.Person != "anna" || out.Strength != session.Passkey {
			t.Fatalf("%+v, error %v", out, err)
		}
	}
	p.passkeyAttacks(t, a)
	clone := *a
	clone.count = 0
	_, err := p.byPasskey(t, &clone)
	mustBe(t, err, ErrRefused)
	if !slices.Contains(p.told, "anna passkey.cloned ") {
		t.Errorf("told: %q", p.told)
	}
	if err := p.directory.Deactivate(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	_, err = p.byPasskey(t, a)
	mustBe(t, err, ErrRefused)
	if err := p.directory.Activate(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	m, err := p.Methods("anna")
	if err != nil || len(m.Passkeys) != 1 {
		t.Fatalf("%+v, error %v", m, err)
	}
	if err := p.RemovePasskey(t.Context(), "anna", "anna", m.Passkeys[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = p.byPasskey(t, a)
	mustBe(t, err, ErrRefused)
}

func (p *portal) passkeyAttacks(t *testing.T, a *authenticator) {
	t.Helper()
	for name, change := range map[string]func(*authenticator){
		"a page of another site":    func(a *authenticator) { a.origin = "https://evil.example" },
		"a passkey of another site": func(a *authenticator) { a.rp = "evil.example" },
		"nobody touched it":         func(a *authenticator) { a.flags = 0 },
		"another key":               func(a *authenticator) { a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"another credential":        func(a *authenticator) { a.id = []byte("0123456789abcdef") },
		"another person":            func(a *authenticator) { a.handle = []byte("nobody") },
	} {
		b := *a
		change(&b)
		if _, err := p.byPasskey(t, &b); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	options, ticket, err := p.BeginPasskeyLogin(origin)
	if err != nil {
		t.Fatal(err)
	}
	response := a.get(t, options)
	if _, err := p.FinishPasskeyLogin(t.Context(), ticket, response); err != nil {
		t.Fatal(err)
	}
	_, err = p.FinishPasskeyLogin(t.Context(), ticket, response)
	mustBe(t, err, ErrTicket)
	if _, ticket, err = p.BeginPasskeyLogin(origin); err != nil {
		t.Fatal(err)
	}
	_, err = p.FinishPasskeyLogin(t.Context(), ticket, response) // replayed
	mustBe(t, err, ErrRefused)
	_, ticket, err = p.BeginPasskey(t.Context(), "anna", origin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.FinishPasskey(t.Context(), "bert", ticket, "", response)
	mustBe(t, err, ErrTicket)
}

func TestPasskeysPossible(t *testing.T) {
	for origin, want := range map[string]bool{"https://portal.example.org": true, "https://portal.example.org:8443": true,
		"http://portal.example.org": false, "https://192.0.2.1": false, "https://[2001:db8::1]": false,
		"http://localhost:8080": true, "": false} {
		if got := PasskeysPossible(origin); got != want {
			t.Errorf("%q: %v", origin, got)
		}
	}
}

// FuzzPasskeyLogin gives the login what no browser sends.
func FuzzPasskeyLogin(f *testing.F) {
	f.Add([]byte(`{"id":"YQ","rawId":"YQ","type":"public-key","response":{"authenticatorData":"","clientDataJSON":"e30"}}`))
	f.Add([]byte(`{}`))
	l := newBare(f)
	f.Fuzz(func(t *testing.T, response []byte) {
		_, ticket, err := l.BeginPasskeyLogin(origin)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := l.FinishPasskeyLogin(context.Background(), ticket, response); err == nil {
			t.Errorf("logged in as %+v", out)
		}
	})
}

var _ People = (*directory.Directory)(nil)

// testWithoutPassword has somebody with a passkey alone: no password is hers, whatever passwords her apps have.
func (p *portal) testWithoutPassword(t *testing.T) {
	p.later()
	ctx := t.Context()
	if err := p.directory.AddPerson(ctx, directory.Person{Name: "eva", Given: "Eva"}); err != nil {
		t.Fatal(err)
	}
	a := p.register(t, "eva")
	for range 2 {
		for _, password := range []string{word, "", "{CLEARTEXT}", " "} {
			_, err := p.Password(from("192.0.2.1"), "eva", password)
			mustBe(t, err, ErrRefused)
			p.later()
		}
		if out, err := p.byPasskey(t, a); err != nil || out.Person != "eva" || out.Strength != session.Passkey {
			t.Errorf("%+v, error %v", out, err)
		}
		if _, _, err := p.directory.AddAppPassword(ctx, "eva", "calendar", time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.ChangePassword(ctx, "eva", "eva", word, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Password(from("192.0.2.1"), "eva", word); err != nil {
		t.Errorf("the password that she has taken later: %v", err)
	}
	if apps, err := p.directory.AppPasswords(ctx, "eva"); err != nil || len(apps) != 2 {
		t.Errorf("passwords for apps %v, %v", apps, err)
	}
}
