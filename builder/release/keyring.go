package release

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"allotment/internal/run"
)

// errNoKey says that a private key is not at hand.
var errNoKey = errors.New("not in the key folders")

// Types of PEM blocks: the public key's is that of RFC 7468, section 13, the private key's that of Sigstore, whose program
// cosign makes and reads the same files.
const (
	publicPEM  = "PUBLIC KEY"
	privatePEM = "ENCRYPTED SIGSTORE PRIVATE KEY"
)

// commandPrefix begins a private key's file that names a program which has the key.
const commandPrefix = "command:"

// Keyring finds private keys. Each key is a pair of files, NAME.pub and NAME.key, in one of the folders, which may be on
// media that are kept apart. NAME.key is encrypted by a passphrase, or one line "command:PROGRAM ARGUMENTS": a program that
// gets what is to be signed on its standard input and prints the raw signature (Ed25519: 64 bytes, RFC 8032; ECDSA P-256: over
// the SHA-256, as in RFC 3279). Hardware tokens are used so.
type Keyring struct {
	Dirs       []string                                     // the first is where new keys are made
	Given      [][]byte                                     // passphrases that are tried before it is asked for one
	Passphrase func(key string, isNew bool) ([]byte, error) // asked when none that was given fits, and once for all new keys
	Runner     run.Runner                                   // starts the programs of keys
	Rand       io.Reader                                    // for new keys

	open  map[string]crypto.Signer
	fresh []byte // passphrase of new keys
}

// Public implements Keys.
func (k *Keyring) Public(name string) (crypto.PublicKey, error) {
	path, err := k.find(name + ".pub")
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != publicPEM {
		return nil, fmt.Errorf("cannot read public key %q: it is no PEM of type %s", path, publicPEM)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// find returns the path of a file in the first folder that has it.
func (k *Keyring) find(file string) (string, error) {
	for _, dir := range k.Dirs {
		path := filepath.Join(dir, file)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("cannot find key %q in %s: %w", file, strings.Join(k.Dirs, ", "), fs.ErrNotExist)
}

// names lists the keys whose public half is there.
func (k *Keyring) names() ([]string, error) {
	var names []string
	for _, dir := range k.Dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".pub"); ok {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Next implements Keys.
func (k *Keyring) Next(role string) (string, error) {
	names, err := k.names()
	last := 0
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, role+"-"); ok {
			if n, err := strconv.Atoi(number); err == nil {
				last = max(last, n)
			}
		}
	}
	return keyName(role, last+1), err
}

// New implements Keys.
func (k *Keyring) New(name string) (crypto.PublicKey, error) {
	if len(k.Dirs) == 0 {
		return nil, errors.New("no key folder is named; use --keys or $ALLOT_RELEASE_KEYS")
	}
	public, private, err := ed25519.GenerateKey(k.Rand)
	if err != nil {
		return nil, err
	}
	if k.fresh == nil {
		if k.fresh, err = k.Passphrase(name, true); err != nil {
			return nil, err
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	sealed, err := encrypted.Encrypt(der, k.fresh)
	if err != nil {
		return nil, err
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(k.Dirs[0], 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(k.Dirs[0], name)
	if err := writeNew(path+".key", 0o600, pem.EncodeToMemory(&pem.Block{Type: privatePEM, Bytes: sealed})); err != nil {
		return nil, err
	}
	k.keep(name, private)
	return public, writeNew(path+".pub", 0o644, pem.EncodeToMemory(&pem.Block{Type: publicPEM, Bytes: open}))
}

// writeNew writes a durable file that must not be there yet.
func writeNew(path string, mode fs.FileMode, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// Signer implements Keys; the error is errNoKey if the key is not at hand.
func (k *Keyring) Signer(ctx context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	name, err := k.nameOf(public)
	if err != nil {
		return nil, err
	}
	if s := k.open[name]; s != nil {
		return s, nil
	}
	s, err := k.load(ctx, name, public)
	if err != nil {
		return nil, fmt.Errorf("cannot use key %q: %w", name, err)
	}
	k.keep(name, s)
	return s, nil
}

func (k *Keyring) keep(name string, s crypto.Signer) {
	if k.open == nil {
		k.open = map[string]crypto.Signer{}
	}
	k.open[name] = s
}

// nameOf finds a public key among those of the folders.
func (k *Keyring) nameOf(public crypto.PublicKey) (string, error) {
	names, err := k.names()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		p, err := k.Public(name)
		if err != nil {
			return "", err
		}
		if p, ok := p.(interface{ Equal(crypto.PublicKey) bool }); ok && p.Equal(public) {
			return name, nil
		}
	}
	return "", errNoKey
}

// load opens a private key.
func (k *Keyring) load(ctx context.Context, name string, public crypto.PublicKey) (crypto.Signer, error) {
	path, err := k.find(name + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoKey
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if line, ok := strings.CutPrefix(string(text), commandPrefix); ok {
		return commandSigner{ctx, public, strings.Fields(line), k.Runner}, nil
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != privatePEM {
		return nil, fmt.Errorf("%q is no PEM of type %s, and no line that begins with %s", path, privatePEM, commandPrefix)
	}
	der, err := k.decrypt(name, block.Bytes)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	return s, nil
}

// decrypt opens a sealed key with a passphrase that was given before, or asks.
func (k *Keyring) decrypt(name string, sealed []byte) ([]byte, error) {
	for _, p := range append(k.Given[:len(k.Given):len(k.Given)], k.fresh) {
		if der, err := encrypted.Decrypt(sealed, p); err == nil {
			return der, nil
		}
	}
	p, err := k.Passphrase(name, false)
	if err != nil {
		return nil, err
	}
	der, err := encrypted.Decrypt(sealed, p)
	if err != nil {
		return nil, errors.New("the passphrase is wrong, or the file is damaged")
	}
	k.Given = append(k.Given, p)
	return der, nil
}

// commandSigner is a key that a program has.
type commandSigner struct {
	ctx    context.Context
	public crypto.PublicKey
	argv   []string
	runner run.Runner
}

// Public implements crypto.Signer.
func (c commandSigner) Public() crypto.PublicKey { return c.public }

// Sign implements crypto.Signer; it is not used, since programs get the whole message.
func (c commandSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a program signs whole messages alone")
}

// SignMessage implements crypto.MessageSigner.
func (c commandSigner) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	if len(c.argv) == 0 {
		return nil, fmt.Errorf("no program is named behind %q", commandPrefix)
	}
	var out bytes.Buffer
	err := c.runner.Run(c.ctx, run.Command{Name: c.argv[0], Args: c.argv[1:], Stdin: bytes.NewReader(message), Stdout: &out})
	return out.Bytes(), err
}
