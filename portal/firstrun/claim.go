package firstrun

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"allotment/portal/store"
)

// How often somebody may try. The box counts, so that a restart of the portal does not forget.
const (
	freeTries   = 10  // without waiting
	mostTries   = 100 // then nobody may, until the box is started again
	longestWait = time.Minute
	claimLasts  = 24 * time.Hour // for how long a browser may go on without the code
	mostClaims  = 20             // browsers at once
)

// What a visitor with a code can be told.
var (
	ErrWrong   = errors.New("not the claim code")
	ErrLocked  = errors.New("too many wrong claim codes: the box must be started again")
	ErrClaimed = errors.New("the box has an officer already")
	ErrNoCode  = errors.New("the box has no claim code")
)

// WaitError says that the next try comes too soon.
type WaitError struct{ Left time.Duration }

// Error implements error.
func (e *WaitError) Error() string { return fmt.Sprintf("please wait %v", e.Left.Round(time.Second)) }

// Normal is the code without what people write between its letters, and with the letters that Crockford's base 32 reads for
// others.
func Normal(code string) string {
	var b strings.Builder
	for _, r := range strings.ToUpper(code) {
		switch {
		case r == 'O':
			b.WriteByte('0')
		case r == 'I' || r == 'L':
			b.WriteByte('1')
		case r >= '0' && r <= '9' || r >= 'A' && r <= 'Z':
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Claim compares the code with the box's and returns a token that lets this browser go on. One is compared at a time.
func (s *Service) Claim(ctx context.Context, code string) (token string, err error) {
	s.claiming.Lock()
	defer s.claiming.Unlock()
	c, err := s.deps.Box.Claim(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot ask the box for its claim: %w", err)
	}
	switch left := s.nextTry.Sub(s.deps.Clock()); {
	case c.Claimed:
		return "", ErrClaimed
	case c.Wrong >= mostTries:
		return "", ErrLocked
	case c.Wrong >= freeTries && s.nextTry.IsZero(): // the portal has just been started
		s.nextTry = s.deps.Clock().Add(pause(c.Wrong))
		return "", &WaitError{pause(c.Wrong)}
	case left > 0:
		return "", &WaitError{left}
	}
	right, err := s.code()
	if err != nil {
		return "", err
	}
	if subtle.ConstantTimeCompare([]byte(Normal(code)), []byte(right)) == 1 {
		return s.admit()
	}
	if c, err = s.deps.Box.ClaimWrong(ctx); err != nil {
		return "", fmt.Errorf("cannot count a wrong claim code: %w", err)
	}
	if c.Wrong >= freeTries {
		s.nextTry = s.deps.Clock().Add(pause(c.Wrong))
	}
	return "", ErrWrong
}

// pause is the time until the next try after so many wrong ones.
func pause(wrong int) time.Duration {
	return min(time.Second<<min(wrong-freeTries, 10), longestWait)
}

// code is the box's claim code in its normal form.
func (s *Service) code() (string, error) {
	b, err := os.ReadFile(s.deps.Config().Claim)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNoCode
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the claim code: %w", err)
	}
	code := Normal(string(b))
	if code == "" {
		return "", ErrNoCode
	}
	return code, nil
}

// admit remembers a new browser by the hash of a token, and forgets the oldest where there are too many.
func (s *Service) admit() (string, error) {
	token := rand.Text()
	_, err := s.change(func(_ *store.Tx, st *State) error {
		st.forget(s.deps.Clock())
		if len(st.Browsers) >= mostClaims {
			st.Browsers = st.Browsers[1:]
		}
		st.Browsers = append(st.Browsers, Browser{Hash: hashed(token), Until: s.deps.Clock().Add(claimLasts)})
		return nil
	})
	return token, err
}

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Admitted tells whether the browser with this token may go on: it has entered the code, and there is no officer yet.
func (s *Service) Admitted(token string) bool {
	st, err := s.State()
	if err != nil || token == "" || st.Officer.Made {
		return false
	}
	found := 0
	for _, b := range st.Browsers {
		if b.Until.After(s.deps.Clock()) {
			found |= subtle.ConstantTimeCompare([]byte(b.Hash), []byte(hashed(token)))
		}
	}
	return found == 1
}
