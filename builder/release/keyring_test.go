package release

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/internal/run"
)

// newRing is a keyring over folders whose passphrase is always the same; it counts how often it is asked.
func newRing(passphrase string, asked *int, dirs ...string) *Keyring {
	return &Keyring{Dirs: dirs, Rand: rand.Reader, Runner: run.Host{}, Passphrase: func(string, bool) ([]byte, error) {
		*asked++
		return []byte(passphrase), nil
	}}
}

// signs tells whether a keyring can sign for a public key.
func signs(t *testing.T, k *Keyring, public crypto.PublicKey) error {
	t.Helper()
	s, err := k.Signer(t.Context(), public)
	if err != nil {
		return err
	}
	sig, err := crypto.SignMessage(s, rand.Reader, []byte("message"), crypto.Hash(0))
	if err == nil && !ed25519.Verify(public.(ed25519.PublicKey), []byte("message"), sig) {
		err = errors.New("the signature does not hold")
	}
	return err
}

func TestKeyring(t *testing.T) {
	one, two, asked := t.TempDir(), t.TempDir(), 0
	k := newRing("secret", &asked, one, two)
	public, err := k.New("root-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.New("root-1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was overwritten: %v", err)
	}
	if _, err := k.New("root-2"); err != nil || asked != 1 {
		t.Errorf("asked %d times for new keys, %v", asked, err)
	}
	if next, err := k.Next("root"); err != nil || next != "root-3" {
		t.Errorf("next is %q, %v", next, err)
	}
	info, err := os.Stat(filepath.Join(one, "root-1.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info, err)
	}
	for _, ending := range []string{".key", ".pub"} { // to other media
		if err := os.Rename(filepath.Join(one, "root-2"+ending), filepath.Join(two, "root-2"+ending)); err != nil {
			t.Fatal(err)
		}
	}
	asked = 0
	k = newRing("secret", &asked, one, two)
	if err := signs(t, k, public); err != nil {
		t.Error(err)
	}
	second, err := k.Public("root-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(t, k, second); err != nil || asked != 1 {
		t.Errorf("asked %d times for two keys of one passphrase, %v", asked, err)
	}
	wantError(t, signs(t, newRing("wrong", &asked, one), public), `cannot use key "root-1": the passphrase is wrong`)
	if err := signs(t, newRing("secret", &asked, one), second); !errors.Is(err, errNoKey) {
		t.Errorf("a key in a folder that is not there: %v", err)
	}
	flip(t, filepath.Join(one, "root-1.key"))
	if err := signs(t, newRing("secret", &asked, one), public); err == nil {
		t.Error("a damaged key signs")
	}
}

// signerProgram is the environment variable that makes this test binary a program that has a key: see TestMain.
const signerProgram = "ALLOTMENT_TEST_KEY"

func TestMain(m *testing.M) {
	if path := os.Getenv(signerProgram); path != "" {
		if err := signAsProgram(path); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// signAsProgram signs standard input with the key in a file.
func signAsProgram(path string) error {
	der, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	s := &tufSigner{Signer: key.(crypto.Signer)}
	sig, err := s.SignMessage(strings.NewReader(string(message)))
	os.Stdout.Write(sig)
	return err
}

// token makes a key that only a program has.
func token(t *testing.T, dir, name string, private crypto.Signer) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "token")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		secret:                          der,
		filepath.Join(dir, name+".pub"): pem.EncodeToMemory(&pem.Block{Type: publicPEM, Bytes: public}),
		filepath.Join(dir, name+".key"): []byte("command:env " + signerProgram + "=" + secret + " " + self + "\n"),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Keys of tokens, Ed25519 and ECDSA P-256, sign a repository; a token that signs something else is noticed.
func TestTokens(t *testing.T) {
	dir, asked := t.TempDir(), 0
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token(t, dir, "root-1", private)
	token(t, dir, "root-2", curve)
	ring := newRing("secret", &asked, dir)
	o := Options{Dir: filepath.Join(t.TempDir(), "repo"), Keys: ring, Now: start}
	if err := Init(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := offers(t, o.Dir, start); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	uses, err := r.KeyUses(newRing("", &asked, dir))
	if err != nil || len(uses) != 8 || uses[0].Name != "root-1" || !uses[0].AtHand || uses[0].Threshold != 2 {
		t.Errorf("keys are %+v, %v", uses, err)
	}
	for _, c := range []struct{ line, want string }{
		{"command:echo nothing", "signatures of root do not hold"},
		{"command:", `no program is named behind "command:"`},
		{"command:false", "cannot run false"},
		{"text", "is no PEM of type"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "root-1.key"), []byte(c.line), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"root-3.key"} {
			os.Remove(filepath.Join(dir, n))
		}
		r.Keys = newRing("secret", &asked, dir)
		wantError(t, r.Refresh(context.Background(), tuf.ROOT), c.want)
	}
	if _, err := offers(t, o.Dir, start); err != nil {
		t.Error(err)
	}
}
