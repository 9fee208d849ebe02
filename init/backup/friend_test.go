package backup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/modules/backups/backupstest"
)

func TestMain(m *testing.M) { backupstest.Main(m) }

// certificate makes one for 127.0.0.1, signed by an authority of its own, as a gateway does.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	make := func(c, issuer *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		if signer == nil {
			issuer, signer = c, key
		}
		c.SerialNumber, c.NotBefore, c.NotAfter, c.BasicConstraintsValid = big.NewInt(now.UnixNano()), now.Add(-time.Hour), now.Add(time.Hour), true
		der, err := x509.CreateCertificate(rand.Reader, c, issuer, key.Public(), signer)
		must(err)
		parsed, err := x509.ParseCertificate(der)
		must(err)
		return parsed, key
	}
	authority, signer := make(&x509.Certificate{Subject: pkix.Name{CommonName: "own"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leaf, key := make(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, authority, signer)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, authority.Raw}, PrivateKey: key}
}

// front is what stands for the other box's gateway. Its certificate can be exchanged.
type front struct {
	*httptest.Server
	certificate tls.Certificate
	asked       func(*http.Request) // is called for each request
}

func newFront(t *testing.T, to string) *front {
	t.Helper()
	f := &front{certificate: certificate(t), asked: func(*http.Request) {}}
	target := &url.URL{Scheme: "http", Host: to}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	f.Server = httptest.NewUnstartedServer(http.StripPrefix(friendPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked(r)
		proxy.ServeHTTP(w, r)
	})))
	f.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{f.certificate}}, nil
	}}
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

// withFriend is a box and another one that knows it as ashwell, whose certificate the officers have compared.
func withFriend(t *testing.T, s backupstest.Settings, body func(*rig, *front, *backupstest.Server, api.BackupTarget)) {
	s.Friends = "ashwell\noakham"
	server := backupstest.Start(t, s)
	f := newFront(t, server.Address)
	onBox(t, func(r *rig) {
		target := api.BackupTarget{Kind: Friend, Address: f.URL, User: "ashwell", Secret: server.Passwords["ashwell"]}
		_, err := r.SetTarget(r.t.Context(), target)
		_, print, found := strings.Cut(refusal(r, err, "that box's own authority"), "fingerprint ")
		if len(print) < 95 || !found {
			t.Errorf("no fingerprint to compare: %v", err)
			return
		}
		target.HostKey = strings.ToLower(print[:95]) // as somebody may type it
		body(r, f, server, target)
	})
}

// refusal wants an error in words that has the text.
func refusal(r *rig, err error, text string) string {
	r.t.Helper()
	var told *api.Error
	if !errors.As(err, &told) || !strings.Contains(err.Error(), text) {
		r.t.Errorf("error %v, want one with %q", err, text)
		return ""
	}
	return err.Error()
}

// TestFriend backs up to another box, proves and restores, and tries what must be refused.
func TestFriend(t *testing.T) {
	withFriend(t, backupstest.Settings{Room: 1}, func(r *rig, f *front, s *backupstest.Server, target api.BackupTarget) {
		wrong, other, strange := target, target, target
		wrong.Secret += "x"
		other.User = "oakham" // with the password of ashwell
		strange.HostKey = "00" + target.HostKey[2:]
		for text, w := range map[string]api.BackupTarget{"user and the password": wrong, "user and the password ": other, "another authority": strange} {
			_, err := r.SetTarget(t.Context(), w)
			refusal(r, err, strings.TrimSpace(text))
		}
		sheet, err := r.SetTarget(t.Context(), target)
		r.must(err)
		if sheet.Target.Authority != "" || plain(sheet.Target.HostKey) != plain(target.HostKey) {
			t.Errorf("on the sheet: %+v", sheet.Target)
		}
		r.history.Pruned = time.Time{}
		run, err := r.Save(t.Context())
		r.must(err)
		proof, err := r.Prove(t.Context())
		r.must(err)
		if run.Added == 0 || !proof.OK {
			t.Errorf("%+v, %+v", run, proof)
		}
		if names, err := filepath.Glob(filepath.Join(s.Folder("/var/lib/backups"), "ashwell", "snapshots", "*")); err != nil || len(names) != 1 {
			t.Errorf("the other box has %v, %v", names, err)
		}
		// Restored with what is on the sheet, on a box that knows nothing else.
		target.HostKey = sheet.Target.HostKey
		r.must(r.Restore(t.Context(), api.BackupRestoreRequest{Target: target, Key: sheet.Key, Confirm: true}))
		(<-r.wanted)(t.Context())
		if st := r.Status().Restore; st.Stage != stageArmed {
			t.Errorf("%+v", st)
		}
		// Whoever answers in the other box's place is refused, each time.
		f.certificate = certificate(t)
		if run, err := r.Save(t.Context()); err == nil || !strings.Contains(run.Problem, "certificate") {
			t.Errorf("another authority: %v, %+v", err, run)
		}
	})
}

// TestFriendIsFull and TestFriendKeeps: what the other box's officers have set.
func TestFriendIsFull(t *testing.T) {
	withFriend(t, backupstest.Settings{Room: 1}, func(r *rig, _ *front, s *backupstest.Server, target api.BackupTarget) {
		_, err := r.SetTarget(t.Context(), target)
		r.must(err)
		// The room is taken by what another friend has there.
		path := filepath.Join(s.Folder("/var/lib/backups"), "oakham")
		r.must(errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30)))
		s.Restart(t, backupstest.Settings{Friends: "ashwell\noakham", Room: 1})
		run, err := r.Save(t.Context())
		if err == nil || run.OK || !strings.Contains(run.Problem, "no room") {
			t.Errorf("%v, %+v", err, run)
		}
		r.clean()
		r.must(os.Remove(path))
		s.Restart(t, backupstest.Settings{Friends: "ashwell", Room: 1})
		if run, err = r.Save(t.Context()); err != nil || !run.OK {
			t.Errorf("with room: %v, %+v", err, run)
		}
	})
}

func TestFriendKeeps(t *testing.T) {
	withFriend(t, backupstest.Settings{Room: 1, Keep: true}, func(r *rig, _ *front, s *backupstest.Server, target api.BackupTarget) {
		_, err := r.SetTarget(t.Context(), target)
		r.must(err)
		for _, text := range []string{"second", "third", "fourth"} {
			r.fill(text)
			r.now = r.now.Add(time.Hour)
			r.history.Pruned = time.Time{}
			if run, err := r.Save(t.Context()); err != nil || !run.OK {
				t.Errorf("%v, %+v", err, run)
			}
		}
		all, err := r.Snapshots(t.Context())
		if err != nil || len(all) != 3 || !r.history.Pruned.IsZero() {
			t.Errorf("%v, %+v, removed %v", err, all, r.history.Pruned)
		}
		// The twin: once it may, what is too old goes. restic keeps the newest and the oldest of a day.
		s.Restart(t, backupstest.Settings{Friends: "ashwell", Room: 1})
		run, err := r.Save(t.Context())
		all, err2 := r.Snapshots(t.Context())
		if err = errors.Join(err, err2); err != nil || !run.OK || len(all) != 2 || r.history.Pruned.IsZero() {
			t.Errorf("%v, %+v, %+v", err, run, all)
		}
	})
}

// TestFriendCut kills restic in the middle of what it sends.
func TestFriendCut(t *testing.T) {
	withFriend(t, backupstest.Settings{Room: 1}, func(r *rig, f *front, _ *backupstest.Server, target api.BackupTarget) {
		_, err := r.SetTarget(t.Context(), target)
		r.must(err)
		killed := make(chan error, 1)
		f.asked = func(q *http.Request) {
			if q.Method == http.MethodPost && strings.Contains(q.URL.Path, "/data/") && len(killed) == 0 {
				killed <- killChild("restic")
			}
		}
		if run, err := r.Save(t.Context()); len(killed) == 0 || err == nil || run.OK {
			t.Errorf("%v, %+v", err, run)
		} else if err := <-killed; err != nil {
			t.Error(err)
		}
		f.asked = func(*http.Request) {}
		r.clean()
		r.again()
		if run, err := r.Save(t.Context()); err != nil || !run.OK {
			t.Errorf("after it: %v, %+v", err, run)
		}
	})
}
