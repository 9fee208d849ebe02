package login

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

const (
	word   = "correct horse battery staple"
	origin = "https://portal.ashwell.example"
)

// portal is a Login with a directory of its own, whose only officer is otto.
type portal struct {
	*Login
	directory *directory.Directory
	now       time.Time
	told      []string
	sent      []letter
	noMail    bool
}

// letter is a mail with a link.
type letter struct {
	to, kind, link, officer string
	until                   time.Time
}

// newBare is a Login whose directory does not answer.
func newBare(t testing.TB) *portal {
	t.Helper()
	p := &portal{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	p.directory = directory.Open("127.0.0.1:1", func() (string, error) { return "", nil })
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	clock := func() time.Time { return p.now }
	p.Login = New(Deps{Directory: p.directory, DB: db, Audit: audit.New(db, clock), Now: clock,
		Sessions: session.New(db, clock, func() bool { return true }),
		Config:   func() config.Config { return config.Config{Domain: "ashwell.example", Origin: origin, Secure: true} },
		Tell: func(_ context.Context, person, kind string, args map[string]string) {
			p.told = append(p.told, person+" "+kind+" "+args["officer"])
		}})
	p.CanMail, p.Place = func() bool { return !p.noMail }, func() string { return origin }
	p.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p.Send = func(_ context.Context, v directory.Person, kind string, until time.Time, args map[string]string) error {
		p.sent = append(p.sent, letter{v.OutsideMail, kind, args["link"], args["officer"], until})
		return nil
	}
	p.answerTime = 0
	return p
}

func newPortal(t testing.TB) *portal {
	t.Helper()
	address, password := directorytest.Start(t)
	p := newBare(t)
	p.directory = directory.Open(address, func() (string, error) { return password, nil })
	p.Directory = p.directory
	t.Cleanup(func() { p.directory.Close() })
	ctx := t.Context()
	for _, name := range []string{"anna", "bert", "otto"} {
		person := directory.Person{Name: name, Given: strings.ToUpper(name[:1]) + name[1:], Family: "Archer",
			Mail: name + "@ashwell.example", OutsideMail: name + "@elsewhere.example"}
		if err := errors.Join(p.directory.AddPerson(ctx, person), p.directory.SetPassword(ctx, name, word)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.directory.AppointTo(ctx, "chair", "otto", time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// from is a request of a browser at an address, with cookies that answers gave it.
func from(address string, cookies ...*http.Cookie) *http.Request {
	r := httptest.NewRequest("POST", origin+"/portal/login", nil)
	r.Header.Set("X-Forwarded-For", address)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return r
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func mustWait(t *testing.T, err error) (until time.Time) {
	t.Helper()
	var wait *WaitError
	if !errors.As(err, &wait) {
		t.Fatalf("error %v, want one that says how long to wait", err)
	}
	return wait.Until
}

// TestLogin starts slapd once for all that needs it.
func TestLogin(t *testing.T) {
	p := newPortal(t)
	t.Run("passwords", p.testPasswords)
	t.Run("deactivated", p.testDeactivated)
	t.Run("strangers", p.testStrangers)
	t.Run("totp", p.testTOTP)
	t.Run("recovery", p.testRecovery)
	t.Run("new password", p.testNewPassword)
	t.Run("passkeys", p.testPasskeys)
	t.Run("without a password", p.testWithoutPassword)
	t.Run("reset", p.testReset)
	t.Run("reset at once", p.testResetAtOnce)
	t.Run("void links", p.testVoidLinks)
	t.Run("address", p.testAddress)
	t.Run("no probing", p.testNoProbing)
	t.Run("officer's reset", p.testOfficersReset)
	t.Run("forget", p.testForget)
	t.Run("gone", p.testGone)
}

// later lets so much time pass that no wrong try counts any more.
func (p *portal) later() { p.now = p.now.Add(time.Hour) }

func (p *portal) testPasswords(t *testing.T) {
	p.later()
	for _, name := range []string{"anna", " Anna ", "anna@ashwell.example", "ANNA@elsewhere.example"} {
		out, err := p.Password(from("192.0.2.1"), name, word)
		if err != nil || out.Person != "anna" || out.Strength != session.Password || out.Ticket != "" {
			t.Errorf("%q: %+v, error %v", name, out, err)
		}
	}
	_, app, err := p.directory.AddAppPassword(t.Context(), "anna", "telephone", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, try := range [][2]string{{"anna", word + "x"}, {"anna", ""}, {"anna", app}, {"nobody", word}, {"", word},
		{"anna)(uid=*", word}, {"*", word}, {"bert@other.example", word}, {"anna", strings.Repeat("x", 1<<20)}} {
		p.later()
		if _, err := p.Password(from("192.0.2.1"), try[0], try[1]); !errors.Is(err, ErrRefused) {
			t.Errorf("%q with %.20q: error %v", try[0], try[1], err)
		}
	}
}

func (p *portal) testDeactivated(t *testing.T) {
	p.later()
	ctx := t.Context()
	if err := p.directory.Deactivate(ctx, "bert"); err != nil {
		t.Fatal(err)
	}
	_, err := p.Password(from("192.0.2.1"), "bert", word)
	mustBe(t, err, ErrRefused)
	if err := p.directory.Activate(ctx, "bert"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Password(from("192.0.2.1"), "bert", word); err != nil {
		t.Error(err)
	}
}

// testStrangers has strangers try at an account from many addresses: they are slowed down, as they are at an account that
// is not there, and the person herself gets in with the browser that she has used before.
func (p *portal) testStrangers(t *testing.T) {
	p.later()
	out, err := p.Password(from("192.0.2.1"), "anna", word)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if _, err := p.Enter(w, from("192.0.2.1"), out); err != nil {
		t.Fatal(err)
	}
	var waits []time.Time
	for _, name := range []string{"anna", "nobody"} {
		for i := range accountRule.free {
			_, err := p.Password(from("198.51.100."+string(rune('0'+i))), name, "wrong password")
			mustBe(t, err, ErrRefused)
		}
		_, err = p.Password(from("203.0.113.1"), name, word)
		waits = append(waits, mustWait(t, err))
	}
	if !waits[0].Equal(waits[1]) || !waits[0].Equal(p.now.Add(accountRule.first)) {
		t.Errorf("waits until %v", waits)
	}
	known := w.Result().Cookies()
	if _, err := p.Password(from("192.0.2.1", known...), "anna", word); err != nil {
		t.Errorf("in the browser that she knows: %v", err)
	}
	_, err = p.Password(from("203.0.113.1"), "anna@elsewhere.example", word)
	mustWait(t, err) // another name of the account
	for _, c := range known {
		c.Value = strings.Replace(c.Value, "anna", "nobody", 1)
	}
	_, err = p.Password(from("203.0.113.2", known...), "nobody", word)
	mustWait(t, err) // a mark of another account
	p.now = waits[0]
	if _, err := p.Password(from("203.0.113.1"), "anna", word); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

func (p *portal) testTOTP(t *testing.T) {
	p.later()
	ctx := t.Context()
	_, secret, ticket, err := p.BeginTOTP("anna")
	if err != nil {
		t.Fatal(err)
	}
	code := func() string {
		c, err := totp.GenerateCode(secret, p.now)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	mustBe(t, p.ConfirmTOTP(ctx, "anna", ticket, "000000"), ErrRefused)
	mustBe(t, p.ConfirmTOTP(ctx, "bert", ticket, code()), ErrTicket)
	if err := p.ConfirmTOTP(ctx, "anna", ticket, code()); err != nil {
		t.Fatal(err)
	}
	half, err := p.Password(from("192.0.2.1"), "anna", word)
	if err != nil || half.Ticket == "" {
		t.Fatalf("%+v, error %v", half, err)
	}
	_, err = p.Enter(httptest.NewRecorder(), from("192.0.2.1"), half)
	mustBe(t, err, ErrRefused)
	_, err = p.Code(from("192.0.2.1"), half.Ticket, code())
	mustBe(t, err, ErrRefused) // the code that has turned it on
	p.now = p.now.Add(totpStep * time.Second)
	out, err := p.Code(from("192.0.2.1"), half.Ticket, code()[:3]+" "+code()[3:])
	if err != nil || out.Person != "anna" || out.Strength != session.TOTP {
		t.Fatalf("%+v, error %v", out, err)
	}
	_, err = p.Code(from("192.0.2.1"), half.Ticket, code())
	mustBe(t, err, ErrTicket)
	half, err = p.Password(from("192.0.2.1"), "anna", word)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Code(from("192.0.2.1"), half.Ticket, code())
	mustBe(t, err, ErrRefused) // replayed
	p.guessCodes(t)
	if err := p.RemoveTOTP(ctx, "anna", "anna"); err != nil {
		t.Fatal(err)
	}
	p.later()
	if out, err := p.Password(from("192.0.2.1"), "anna", word); err != nil || out.Ticket != "" {
		t.Errorf("without codes %+v, error %v", out, err)
	}
}

// guessCodes has somebody who knows the password guess codes: that the password was right does not give him more tries.
func (p *portal) guessCodes(t *testing.T) {
	t.Helper()
	p.later()
	for i := range 2 * accountRule.free {
		half, err := p.Password(from("198.51.100.1"), "anna", word)
		if err == nil {
			_, err = p.Code(from("198.51.100.1"), half.Ticket, "000000")
		}
		var wait *WaitError
		if errors.As(err, &wait) {
			return
		}
		if !errors.Is(err, ErrRefused) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	t.Error("codes can be guessed without end")
}

func (p *portal) testRecovery(t *testing.T) {
	p.later()
	ctx := t.Context()
	codes, err := p.MakePrinted(ctx, "anna")
	if err != nil || len(codes) != printedCodes {
		t.Fatalf("%v, error %v", codes, err)
	}
	before, err := p.Sessions.Begin(httptest.NewRecorder(), from("192.0.2.1"), "anna", session.Password)
	if err != nil {
		t.Fatal(err)
	}
	typed := strings.ToUpper(strings.ReplaceAll(codes[3], "-", " "))
	out, err := p.Recover(from("192.0.2.1"), "anna", strings.NewReplacer("0", "O", "1", "l").Replace(typed))
	if err != nil || out.Person != "anna" || out.Strength != session.Printed {
		t.Fatalf("%+v, error %v", out, err)
	}
	if _, err := p.Sessions.Get(before.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("a session from before the recovery: %v", err)
	}
	for _, code := range []string{codes[3], "", "-"} {
		_, err = p.Recover(from("192.0.2.1"), "anna", code)
		mustBe(t, err, ErrRefused)
	}
	_, err = p.Recover(from("192.0.2.1"), "bert", codes[4])
	mustBe(t, err, ErrRefused)
	if m, err := p.Methods("anna"); err != nil || m.Printed != printedCodes-1 {
		t.Errorf("%+v, error %v", m, err)
	}
	p.later()
	p.officersCode(t)
}

func (p *portal) officersCode(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, who := range [][2]string{{"anna", "bert"}, {"otto", "otto"}} {
		_, _, err := p.MakeOfficerCode(ctx, who[0], who[1])
		mustBe(t, err, ErrOfficer)
	}
	code, until, err := p.MakeOfficerCode(ctx, "otto", "bert")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Code(from("192.0.2.1"), p.pending.Put(halfway{"bert"}), code) // not a code of a second step
	mustBe(t, err, ErrRefused)
	p.now = until
	_, err = p.Recover(from("192.0.2.1"), "bert", code)
	mustBe(t, err, ErrRefused)
	p.now = until.Add(-time.Second)
	if out, err := p.Recover(from("192.0.2.1"), "bert", code); err != nil || out.Strength != session.Officer {
		t.Errorf("%+v, error %v", out, err)
	}
	_, err = p.Recover(from("192.0.2.1"), "bert", code)
	mustBe(t, err, ErrRefused)
	if !slices.Contains(p.told, "bert recovery.code otto") {
		t.Errorf("told: %q", p.told)
	}
	entries, err := p.Audit.Recent(9, "")
	if err != nil || !slices.ContainsFunc(entries, func(e audit.Entry) bool {
		return e.Kind == "recovery.code" && e.Actor == "otto" && e.Subject == "bert"
	}) {
		t.Errorf("audit log %+v, error %v", entries, err)
	}
}

func (p *portal) testNewPassword(t *testing.T) {
	p.later()
	ctx := t.Context()
	mustBe(t, p.ChangePassword(ctx, "bert", "bert", "bert archer", ""), ErrOwn)
	const umlauts = "Ga\u0308rtnerei am Bach" // as some keyboards type it
	other, err := p.Sessions.Begin(httptest.NewRecorder(), from("192.0.2.1"), "bert", session.Password)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ChangePassword(ctx, "bert", "bert", umlauts, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Sessions.Get(other.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("the session in another browser: %v", err)
	}
	_, err = p.Password(from("192.0.2.1"), "bert", word)
	mustBe(t, err, ErrRefused)
	if _, err := p.Password(from("192.0.2.1"), "bert", "G\u00e4rtnerei am Bach"); err != nil {
		t.Errorf("typed with another keyboard: %v", err)
	}
}

func (p *portal) testForget(t *testing.T) {
	if _, err := p.MakePrinted(t.Context(), "bert"); err != nil {
		t.Fatal(err)
	}
	if err := p.Forget("bert"); err != nil {
		t.Fatal(err)
	}
	if m, err := p.Methods("bert"); err != nil || m.Printed != 0 {
		t.Errorf("%+v, error %v", m, err)
	}
}

// BenchmarkPassword is a login by password with its session. Most of it is the directory's argon2id.
func BenchmarkPassword(b *testing.B) {
	p := newPortal(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			out, err := p.Password(from("192.0.2.1"), "anna", word)
			if err == nil {
				_, err = p.Enter(httptest.NewRecorder(), from("192.0.2.1"), out)
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
}

func TestCheckPassword(t *testing.T) {
	anna := directory.Person{Name: "anna.archer", Given: "Anna", Family: "Archer", Mail: "anna@ashwell.example"}
	for password, want := range map[string]error{
		word: nil, "fünf Äpfel im Gras": nil, "annas garden shed": nil,
		"short": ErrShort, "ÄÖÜÄÖÜÄÖÜ": ErrShort, "1234567890": ErrCommon, "aaaaaaaaaaaaaaa": ErrCommon,
		"Password123!": ErrCommon, "passwordpassword": ErrCommon, "QWERTZUIOP": ErrCommon, "1q2w3e4r5t": ErrCommon,
		"Anna.Archer1": ErrOwn, "archeranna99": ErrOwn, "anna@ashwell.example": ErrOwn,
		"app-0000-0000-0000-0000-0000": ErrCommon, strings.Repeat("lang ", 200): ErrLong,
	} {
		if got := CheckPassword(anna, password); !errors.Is(got, want) || want == nil && got != nil {
			t.Errorf("%.40q: %v, want %v", password, got, want)
		}
	}
}

func FuzzCheckPassword(f *testing.F) {
	f.Add("correct horse", "anna")
	f.Add("\xff\xfe", "ä")
	f.Fuzz(func(t *testing.T, password, name string) {
		if CheckPassword(directory.Person{Name: name}, password) == nil && len(Normal(password)) < minPassword {
			t.Errorf("%q is taken", password)
		}
	})
}
