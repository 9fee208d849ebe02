package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"allotment/init/durable"
)

// Policy is what officers want of updates. The zero policy is the usual one.
type Policy struct {
	Paused     bool      `json:"paused,omitempty"`    // no update until an officer says otherwise
	DeferUntil time.Time `json:"deferUntil,omitzero"` // no restart before
	Window     Window    `json:"window,omitzero"`     // in which the box may restart
	Metered    bool      `json:"metered,omitempty"`   // bytes cost money: none is fetched until Now
	Now        bool      `json:"now,omitempty"`       // as soon as possible, once
	Channel    string    `json:"channel,omitempty"`   // stable or candidate; empty: the manifest's
	Source     string    `json:"source,omitempty"`    // usb:LABEL of a disk, or the URL of a mirror; empty: the manifest's URLs
}

// Disk is the label of the disk that has a copy of the repository, if the source is one.
func (p Policy) Disk() (label string, ok bool) { return strings.CutPrefix(p.Source, "usb:") }

// Window is a part of the day in the organisation's time zone. It may go over midnight; empty: 02:00 to 05:00.
type Window struct {
	From string `json:"from"` // such as 02:00
	To   string `json:"to"`
}

// policyFile is the policy's name in the updater's folder.
const policyFile = "policy.json"

// LoadPolicy reads the policy in the updater's folder; the zero one if there is none.
func LoadPolicy(dir string) (Policy, error) {
	var p Policy
	b, err := os.ReadFile(filepath.Join(dir, policyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return Policy{}, fmt.Errorf("cannot read what officers want of updates: %w", err)
	}
	return p, nil
}

// Save keeps the policy in the updater's folder, durably.
func (p Policy) Save(dir string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("cannot keep what officers want of updates: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep what officers want of updates: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, policyFile), b, 0o600)
}

// sourceIsKnown: a mirror is not believed, so that it may speak HTTP.
func (p Policy) sourceIsKnown() bool {
	if label, ok := p.Disk(); ok || p.Source == "" {
		return !ok || label != "" && !strings.ContainsFunc(label, unicode.IsControl)
	}
	u, err := url.Parse(p.Source)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// Check refuses what makes no sense.
func (p Policy) Check() error {
	if p.Channel != "" && p.Channel != "stable" && p.Channel != "candidate" {
		return fmt.Errorf("channel is stable or candidate, not %q", p.Channel)
	}
	if !p.sourceIsKnown() {
		return fmt.Errorf("source is usb: and a disk's label, or the address of a mirror such as https://example.org/updates, not %q", p.Source)
	}
	if p.Window == (Window{}) {
		return nil
	}
	for _, t := range []string{p.Window.From, p.Window.To} {
		if _, err := time.Parse("15:04", t); err != nil {
			return fmt.Errorf("a time of day is such as 02:00, not %q", t)
		}
	}
	return nil
}
