package secret

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"allotment/image"
	"allotment/init/plan"
)

var (
	today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	club  = image.Organisation{Domain: "club.example.org"}
)

func module(secrets ...image.Secret) *plan.Module {
	m := &plan.Module{Name: "chat", FirstID: 1 << 20}
	for _, s := range secrets {
		m.Secrets = append(m.Secrets, plan.Secret{Secret: s, UID: 33, GID: 34})
	}
	return m
}

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ensure(t *testing.T, s *Store, m *plan.Module, o image.Organisation, now time.Time) map[string]Value {
	t.Helper()
	all, err := s.Ensure(m, o, now)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMadeOnce(t *testing.T) {
	s := openStore(t)
	m := module(image.Secret{Name: "db", Kind: "password"}, image.Secret{Name: "salt", Kind: "hex"},
		image.Secret{Name: "tls", Kind: "certificate"})
	first := ensure(t, s, m, club, today)
	if !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(first["db"].Reveal()) {
		t.Errorf("the password is %q", first["db"].Reveal())
	}
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(first["salt"].Reveal()) {
		t.Errorf("the bytes are %q", first["salt"].Reveal())
	}
	if len(first) != 4 {
		t.Errorf("there are %d secrets", len(first))
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if second := ensure(t, again, m, club, today.AddDate(0, 3, 0)); !reflect.DeepEqual(first, second) {
		t.Error("secrets were made twice")
	}
	err = filepath.Walk(s.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can use %q: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	other := ensure(t, openStore(t), m, club, today)
	for name := range other {
		if other[name].Reveal() == first[name].Reveal() {
			t.Errorf("two boxes have the same %s", name)
		}
	}
}

func TestPasswordsUseAllCharacters(t *testing.T) {
	counts := map[rune]int{}
	for range 1000 {
		for _, c := range newPassword() {
			counts[c]++
		}
	}
	for c, n := range counts { // 516 expected, and 23 is the standard deviation
		if n < 350 || n > 700 {
			t.Errorf("%q came %d times in 32000", c, n)
		}
	}
	if len(counts) != 62 {
		t.Errorf("%d characters are in use", len(counts))
	}
}

// A secret that was lost is not replaced, as what it protects would be lost with it.
func TestDamageIsToldOf(t *testing.T) {
	s := openStore(t)
	m := module(image.Secret{Name: "db", Kind: "password"})
	ensure(t, s, m, club, today)
	if err := os.WriteFile(filepath.Join(s.dir, "chat", "db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(m, club, today); err == nil || !strings.Contains(err.Error(), `secret "db" of module "chat"`) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Ensure(module(image.Secret{Name: "x", Kind: "pin"}), club, today); err == nil {
		t.Error("made a secret of no known kind")
	}
}

func certificate(t *testing.T, all map[string]Value) *x509.Certificate {
	t.Helper()
	_, cert, err := pair{all["tls.key"].Reveal(), all["tls.crt"].Reveal()}.parse()
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateServes(t *testing.T) {
	s := openStore(t)
	m := module(image.Secret{Name: "tls", Kind: "certificate", Host: "chat"})
	all := ensure(t, s, m, club, today)
	key, err := tls.X509KeyPair([]byte(all["tls.crt"].Reveal()), []byte(all["tls.key"].Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authority) {
		t.Fatalf("the authority is %q", authority)
	}
	clock := func() time.Time { return today }
	for name, works := range map[string]bool{
		"chat.club.example.org": true, "chat.internal": true, "club.example.org": false, "web.club.example.org": false,
	} {
		c, d := net.Pipe()
		server := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{key}, Time: clock})
		go server.Handshake()
		client := tls.Client(d, &tls.Config{RootCAs: trusted, ServerName: name, Time: clock})
		if err := client.Handshake(); (err == nil) != works {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	m := module(image.Secret{Name: "tls", Kind: "certificate"})
	moved := image.Organisation{Domain: "moved.example.org"}
	for name, c := range map[string]struct {
		o     image.Organisation
		after time.Duration
		want  bool
	}{
		"at once":              {club, 0, false},
		"long before the end":  {club, lifetime - renewal - time.Hour, false},
		"a month before":       {club, lifetime - renewal + time.Hour, true},
		"after the end":        {club, 10 * lifetime, true},
		"clock ten years back": {club, -10 * 365 * 24 * time.Hour, true},
		"another domain":       {moved, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			before := ensure(t, s, m, club, today)
			ca, err := s.Authority()
			if err != nil {
				t.Fatal(err)
			}
			now := today.Add(c.after)
			after := ensure(t, s, m, c.o, now)
			if got := before["tls.crt"].Reveal() != after["tls.crt"].Reveal(); got != c.want {
				t.Errorf("renewed: %t", got)
			}
			cert := certificate(t, after)
			if now.Before(cert.NotBefore) || now.Add(renewal).After(cert.NotAfter) || cert.DNSNames[0] != c.o.Domain {
				t.Errorf("good from %v to %v for %q", cert.NotBefore, cert.NotAfter, cert.DNSNames)
			}
			if later, err := s.Authority(); err != nil || !bytes.Equal(ca, later) {
				t.Errorf("the authority changed, %v", err)
			}
		})
	}
}

// Keys that are damaged, or those of an authority that was lost, are replaced: nothing depends on them but trust.
func TestDamagedCertificateIsReplaced(t *testing.T) {
	m := module(image.Secret{Name: "tls", Kind: "certificate"})
	for _, damage := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nx"} {
		s := openStore(t)
		ensure(t, s, m, club, today)
		if err := os.WriteFile(filepath.Join(s.dir, "chat", "tls.pem"), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		certificate(t, ensure(t, s, m, club, today))
	}
	s := openStore(t)
	before := ensure(t, s, m, club, today)
	if err := os.Remove(filepath.Join(s.dir, caFile)); err != nil {
		t.Fatal(err)
	}
	if after := ensure(t, s, m, club, today); after["tls.crt"].Reveal() == before["tls.crt"].Reveal() {
		t.Error("a certificate of an authority that is gone stays")
	}
}

func TestNeverPrinted(t *testing.T) {
	text := "correct-horse"
	v := Value{&text}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "all", map[string]Value{"a": v})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "all", map[string]Value{"a": v})
	b, err := json.Marshal(map[string]any{"a": v, "b": &v, "c": []Value{v}})
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(b) + v.LogValue().String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		printed += fmt.Sprintf(verb, v) + fmt.Sprintf(verb, &v) + fmt.Sprintf(verb, map[string]Value{"a": v})
		printed += fmt.Sprintf(verb, struct{ V, v Value }{v, v})
	}
	for _, form := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text), fmt.Sprint([]byte(text))} {
		if strings.Contains(printed, form) {
			t.Errorf("the secret shows as %s in %s", form, printed)
		}
	}
	if v.Reveal() != text {
		t.Errorf("revealed %q", v.Reveal())
	}
}

func TestInstall(t *testing.T) {
	s := openStore(t)
	m := module(image.Secret{Name: "db", Kind: "password"}, image.Secret{Name: "tls", Kind: "certificate"})
	run := t.TempDir()
	all := ensure(t, s, m, club, today)
	if err := Install(run, m, nil); err == nil {
		t.Error("installed secrets that are not there")
	}
	if os.Getuid() != 0 {
		t.Skip("giving files to others needs root")
	}
	if err := Install(run, m, all); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"db", "tls.crt", "tls.key"} {
		path := filepath.Join(run, "chat", name)
		if b, err := os.ReadFile(path); err != nil || string(b) != all[name].Reveal() {
			t.Errorf("%s is not as made: %v", name, err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 1<<20+33 || sys.Gid != 1<<20+34 || st.Mode() != 0o400 {
			t.Errorf("%s belongs to %d and %d, %v", name, sys.Uid, sys.Gid, st.Mode())
		}
	}
}
