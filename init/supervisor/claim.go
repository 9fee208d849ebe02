package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"allotment/api"
	"allotment/init/secret"
)

// How long a first boot waits for a network, and then for the provider's metadata, before it draws a claim code itself.
const (
	claimNetwork  = 30 * time.Second
	claimMetadata = 10 * time.Second
)

// Provider is who may have chosen the claim code before the box's first boot.
type Provider interface {
	// Firmware returns the code that the machine's firmware hands over; empty if it has none.
	Firmware() string
	// Network returns the code that the provider's metadata service hands over; empty if it has none.
	Network(ctx context.Context) (string, error)
}

// claim is the claim code, as secret.Store.Claim returns it.
func (f *files) claim() (code string, decided bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.secrets.Claim()
}

func (f *files) decideClaim(code string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.secrets.DecideClaim(code)
}

func (f *files) voidClaim() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.secrets.VoidClaim()
}

// lookForClaim finds the claim code beside the loop, or decides it at the first boot.
func (s *Supervisor) lookForClaim(ctx context.Context) {
	if s.portal == nil {
		return // nobody could ask for it
	}
	f := s.files
	go func() {
		code, decided, err := f.claim()
		if err == nil && !decided {
			code, err = f.decideClaim(s.firstClaim(ctx))
		}
		if err == nil {
			err = s.call(func(context.Context) { s.onClaim(code) })
		}
		if err != nil {
			s.warn(err)
		}
	}()
}

// firstClaim is the code that the provider has chosen, or a new one.
func (s *Supervisor) firstClaim(ctx context.Context) string {
	p := s.config.Provider
	if p == nil {
		return secret.NewClaim()
	}
	if code, ok := s.readClaim(p.Firmware()); ok {
		return code
	}
	online, cancel := context.WithTimeout(ctx, claimNetwork)
	_ = s.await(online, func() bool { return len(s.net.Addresses) > 0 }) // without a network nobody answers
	cancel()
	asking, cancel := context.WithTimeout(ctx, claimMetadata)
	defer cancel()
	given, err := p.Network(asking)
	if err != nil {
		s.warn(err)
	}
	if code, ok := s.readClaim(given); ok {
		return code
	}
	return secret.NewClaim()
}

// readClaim reads what a provider has given, if it has given anything.
func (s *Supervisor) readClaim(given string) (string, bool) {
	if given == "" {
		return "", false
	}
	code, err := secret.ParseClaim(given)
	if err != nil {
		s.log.Warn("the provider's claim code cannot be used", "error", err)
	}
	return code, err == nil
}

// onClaim shows the code, on the console and to the portal.
func (s *Supervisor) onClaim(code string) {
	s.claim = code
	f, p := s.files, s.plan
	s.reading.Go(func() {
		if err := s.showPortalSecrets(f, p); err != nil {
			s.warn(err)
		}
	})
}

// wrongFile counts wrong codes until the next boot.
func (s *Supervisor) wrongFile() string { return filepath.Join(s.config.Run, "claim-wrong") }

// claimState tells whether the box is claimed, and how often that was tried in vain.
func (s *Supervisor) claimState() api.Claim {
	var c api.Claim
	if s.files != nil {
		code, decided, err := s.files.claim()
		c.Claimed = err == nil && decided && code == ""
	}
	b, _ := os.ReadFile(s.wrongFile())
	c.Wrong, _ = strconv.Atoi(string(b))
	return c
}

// Claim implements apiserver.Box.
func (b *Box) Claim() api.Claim {
	var c api.Claim
	_ = b.supervisor.call(func(context.Context) { c = b.supervisor.claimState() })
	return c
}

// mostWrong is how many wrong codes lock the first run until the next boot.
const mostWrong = 100

// ClaimWrong implements apiserver.Box.
func (b *Box) ClaimWrong(context.Context) (api.Claim, error) {
	s := b.supervisor
	var c api.Claim
	var err error
	failed := s.call(func(context.Context) {
		c = s.claimState()
		c.Wrong++
		if err = os.WriteFile(s.wrongFile(), []byte(strconv.Itoa(c.Wrong)), 0o600); err != nil {
			return
		}
		text := "somebody entered a wrong claim code, number " + strconv.Itoa(c.Wrong) + " since the box was started"
		if s.locked = c.Wrong >= mostWrong; s.locked {
			text = lockedText
		}
		if c.Wrong == 1 || c.Wrong%10 == 0 {
			s.config.Console.Print("CLAIM-WRONG count=%d: %s", c.Wrong, text)
		}
		s.record(api.Event{Level: api.Fair, Kind: "box", Text: text}, nil)
	})
	return c, firstOf(failed, err)
}

const lockedText = "too many wrong claim codes: nobody can claim the box before it is started again"

// Claimed implements apiserver.Box.
func (b *Box) Claimed(context.Context) error {
	s := b.supervisor
	var err error
	failed := s.call(func(context.Context) {
		if s.files == nil {
			err = api.Errorf(api.Conflict, "the state partition is not open yet")
			return
		}
		if s.claimState().Claimed {
			return
		}
		if err = s.files.voidClaim(); err == nil {
			s.onClaim("")
			s.record(api.Event{Level: api.Good, Kind: "box", Text: "the box has an officer: the claim code is void"}, nil)
		}
	})
	return firstOf(failed, err)
}
