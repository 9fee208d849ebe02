// Package secret makes the secrets that modules declare, once, on the device, and keeps them in the state partition. They
// are in no layer and in no log.
package secret

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"allotment/image"
	"allotment/init/durable"
	"allotment/init/fileset"
	"allotment/init/plan"
)

// Value is a secret. However it is printed or logged, what it is does not show; Reveal returns it.
type Value struct{ content *string } // a pointer, which even a printed struct that hides a Value does not follow

// hidden is shown in place of a secret.
const hidden = "[secret]"

// Reveal returns the secret itself.
func (v Value) Reveal() string {
	if v.content == nil {
		return ""
	}
	return *v.content
}

// Format prints a placeholder, whatever the verb.
func (Value) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue logs a placeholder.
func (Value) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText gives encoders a placeholder.
func (Value) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Store is the secrets in the state partition: files NAME below a folder of the module, those of certificates NAME.pem.
type Store struct {
	dir string

	// Handed is the folder where certificates of publicly trusted authorities are found, MODULE.pem; empty: none is.
	Handed string
}

// Open uses the folder for the secrets of the box, and makes it if it is not there.
func Open(dir string) (*Store, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the secrets: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Ensure returns the module's secrets by the names of their files, and makes what is missing, for good. A certificate is
// made again a month before its end, and when its names change with the organisation's domain; two files come of it,
// NAME.crt and NAME.key.
func (s *Store) Ensure(m *plan.Module, o image.Organisation, now time.Time) (map[string]Value, error) {
	all := map[string]Value{}
	for _, declared := range m.Secrets {
		if err := s.ensure(all, m, declared, o, now); err != nil {
			return nil, fmt.Errorf("cannot make secret %q of module %q: %w", declared.Name, m.Name, err)
		}
	}
	return all, nil
}

func (s *Store) ensure(all map[string]Value, m *plan.Module, declared plan.Secret, o image.Organisation,
	now time.Time) error {
	path := filepath.Join(s.dir, m.Name, declared.Name)
	var make func() string
	switch declared.Kind {
	case "password":
		make = newPassword
	case "hex":
		make = newHex
	case "certificate":
		names := namesOf(m, declared, o)
		p, ok := s.handed(m.Name, names[0], now)
		var err error
		if !ok {
			p, err = s.ensureCertificate(path+".pem", names, now)
		}
		if err != nil {
			return err
		}
		all[declared.Name+".crt"], all[declared.Name+".key"] = Value{&p.chain}, Value{&p.key}
		return nil
	default:
		return fmt.Errorf("its kind %q is not known", declared.Kind)
	}
	content, err := keep(path, make)
	all[declared.Name] = Value{&content}
	return err
}

// keep reads the file at path, which is made if it is not there. An empty one is damage and never taken for a secret;
// it is not made anew either, as what was encrypted or hashed with it would be lost for no reason that shows.
func keep(path string, make func() string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 0 {
		return "", fmt.Errorf("%q is empty", path)
	}
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	content := make()
	return content, durable.WriteFile(path, []byte(content), 0o600)
}

// newPassword returns 32 characters of [A-Za-z0-9]: 190 bits.
func newPassword() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	for b.Len() < 32 {
		var random [64]byte
		rand.Read(random[:]) // never fails
		for _, r := range random {
			// Of 64 values two have no character; they are passed over, so that all characters are equally likely.
			if i := int(r & 63); i < len(alphabet) && b.Len() < 32 {
				b.WriteByte(alphabet[i])
			}
		}
	}
	return b.String()
}

// newHex returns 32 random bytes.
func newHex() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Install exchanges the module's files below dir, for services that see DIR/MODULE as /run/secrets: each can be read by
// the declared user alone, whatever the module's place among the others.
func Install(dir string, m *plan.Module, secrets map[string]Value) error {
	var files []fileset.File
	for _, declared := range m.Secrets {
		names := []string{declared.Name}
		if declared.Kind == "certificate" {
			names = []string{declared.Name + ".crt", declared.Name + ".key"}
		}
		for _, name := range names {
			v, ok := secrets[name]
			if !ok {
				return fmt.Errorf("cannot install secret %q of module %q: it was not made", name, m.Name)
			}
			files = append(files, fileset.File{
				Name: name, Content: []byte(v.Reveal()), Mode: 0o400,
				UID: int(m.FirstID + declared.UID), GID: int(m.FirstID + declared.GID),
			})
		}
	}
	return fileset.Exchange(filepath.Join(dir, m.Name), files)
}
