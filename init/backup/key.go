package backup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A key is 160 random bits in eight groups of four of Crockford's base 32, and a ninth group that tells a slip of the pen.
const (
	keyAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	keyLetters  = 32
	checkLetter = 4
	groupLength = 4
)

// Key opens a repository. It is kept on the device and on the sheet that an officer prints, and nowhere else.
type Key struct{ letters string }

// NewKey draws a key.
func NewKey(random io.Reader) (Key, error) {
	b := make([]byte, keyLetters)
	if _, err := io.ReadFull(random, b); err != nil {
		return Key{}, fmt.Errorf("cannot draw a backup key: %w", err)
	}
	return Key{encode(b)}, nil
}

// encode makes one letter of the lower five bits of each byte.
func encode(b []byte) string {
	letters := make([]byte, len(b))
	for i, x := range b {
		letters[i] = keyAlphabet[x&31]
	}
	return string(letters)
}

func check(letters string) string {
	sum := sha256.Sum256([]byte("allotment backup key\n" + letters))
	return encode(sum[:checkLetter])
}

var errKey = errors.New("this is no backup key: look for a letter that is missing or another one than on the sheet")

// ParseKey reads a key as a person types it: capitals, spaces and hyphens do not matter, and letters that look alike do not.
func ParseKey(text string) (Key, error) {
	var letters strings.Builder
	for _, r := range strings.ToLower(text) {
		switch r {
		case ' ', '-', '\t', '\r', '\n', '\u2010', '\u2011', '\u2013', '\u00a0':
			continue
		case 'o':
			r = '0'
		case 'i', 'l':
			r = '1'
		}
		if !strings.ContainsRune(keyAlphabet, r) || letters.Len() == keyLetters+checkLetter {
			return Key{}, errKey
		}
		letters.WriteRune(r)
	}
	all := letters.String()
	if len(all) != keyLetters+checkLetter || all[keyLetters:] != check(all[:keyLetters]) {
		return Key{}, errKey
	}
	return Key{all[:keyLetters]}, nil
}

// Text is the key as it is printed.
func (k Key) Text() string {
	var groups []string
	for all := k.letters + check(k.letters); len(all) > 0; all = all[groupLength:] {
		groups = append(groups, all[:groupLength])
	}
	return strings.Join(groups, "-")
}

// String keeps the key out of logs.
func (Key) String() string { return "[backup key]" }

// password is what restic is told.
func (k Key) password() string { return k.letters }
