package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a setting that names none.
const (
	maxInteger = math.MaxInt32
	maxLength  = 4096 // characters
)

// Check returns the value in the type that templates see: string, bool or int. An error says in a sentence for people
// what is wrong with it. JSON's and TOML's numbers are taken alike.
func (s Setting) Check(value any) (any, error) {
	switch s.Type {
	case "boolean":
		if b, ok := value.(bool); ok {
			return b, nil
		}
		return nil, errors.New("must be true or false")
	case "integer":
		return s.checkInteger(value)
	case "string", "text", "choice", "email", "host", "url":
		text, ok := value.(string)
		if !ok {
			return nil, errors.New("must be a text")
		}
		return text, s.checkText(text)
	}
	return nil, fmt.Errorf("has the type %q, which this release does not know", s.Type)
}

func (s Setting) checkInteger(value any) (any, error) {
	most := s.Max
	if most == 0 {
		most = maxInteger
	}
	n, ok := integer(value)
	switch {
	case !ok:
		return nil, errors.New("must be a whole number")
	case n < int64(s.Min):
		return nil, fmt.Errorf("must be %d or more", s.Min)
	case n > int64(most):
		return nil, fmt.Errorf("must be %d or less", most)
	}
	return int(n), nil
}

// integer takes what the decoders of TOML and JSON make of a number.
func integer(value any) (int64, bool) {
	switch n := value.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		return int64(n), n == math.Trunc(n) && math.Abs(n) <= 1<<53
	case json.Number:
		i, err := n.Int64()
		return i, err == nil
	}
	return 0, false
}

func (s Setting) checkText(text string) error {
	if err := checkCharacters(text, s.Type == "text"); err != nil {
		return err
	}
	most := s.Max
	if most == 0 {
		most = maxLength
	}
	switch n := utf8.RuneCountInString(text); {
	case n < s.Min && n == 0:
		return errors.New("must not be empty")
	case n < s.Min:
		return fmt.Errorf("must have %d characters or more", s.Min)
	case n > most:
		return fmt.Errorf("must have %d characters or less", most)
	}
	if err := s.checkForm(text); err != nil {
		return err
	}
	if s.Pattern == "" {
		return nil
	}
	whole, err := regexp.Compile(`^(?:` + s.Pattern + `)$`)
	if err != nil {
		return fmt.Errorf("cannot be checked: %w", err)
	}
	if !whole.MatchString(text) {
		return fmt.Errorf("must have the form %s", s.Pattern)
	}
	return nil
}

// checkForm is about the types that are more than a text. Empty is allowed unless Min forbids it.
func (s Setting) checkForm(text string) error {
	switch {
	case s.Type == "choice" && !slices.Contains(s.Choices, text):
		return fmt.Errorf("must be one of %s", strings.Join(s.Choices, ", "))
	case text == "":
	case s.Type == "email" && !isEmail(text):
		return errors.New("must be an e-mail address, such as office@example.org")
	case s.Type == "host" && !isHost(text):
		return errors.New("must be a host name or an IP address")
	case s.Type == "url" && !isURL(text):
		return errors.New("must be an address that begins with https:// or http://")
	}
	return nil
}

// checkCharacters refuses what no line of a configuration file should have.
func checkCharacters(text string, lines bool) error {
	if !utf8.ValidString(text) {
		return errors.New("must be UTF-8")
	}
	for _, r := range text {
		switch {
		case lines && (r == '\n' || r == '\t'):
		case r == '\n':
			return errors.New("must be a single line")
		case unicode.IsControl(r):
			return errors.New("must not have control characters")
		}
	}
	return nil
}

// mailbox is the local part of an address as HTML's forms take it (HTML Standard, 4.10.5.1.5). Package net/mail would
// bring package net into PID 1.
var mailbox = regexp.MustCompile("^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}$")

func isEmail(text string) bool {
	local, host, ok := strings.Cut(text, "@")
	return ok && mailbox.MatchString(local) && isName(host)
}

// hostLabels are the labels of a host name (RFC 1123, section 2.1), in any letter case.
var hostLabels = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(?i:\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

func isName(text string) bool { return len(text) <= 253 && hostLabels.MatchString(text) }

func isHost(text string) bool {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Zone() == ""
	}
	return isName(text)
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && isHost(u.Hostname()) && u.User == nil
}

// Forms of an organisation's fields. Whether a language or time zone of such a form exists is not known here.
var (
	languageForm = regexp.MustCompile(`^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$`)             // RFC 5646, its usual part
	timeZoneForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`) // names of the tz database
)

// Check returns what is wrong with the organisation's fields, by their names in TOML, each a sentence for people.
func (o Organisation) Check() map[string]error {
	faults := map[string]error{}
	fields := map[string]struct {
		setting Setting
		value   string
	}{
		"name":      {Setting{Type: "string", Min: 1, Max: 100}, o.Name},
		"domain":    {Setting{Type: "host", Min: 1, Max: 253}, o.Domain},
		"language":  {Setting{Type: "string", Max: 35}, o.Language},
		"time-zone": {Setting{Type: "string", Max: 64}, o.TimeZone},
		"contact":   {Setting{Type: "email"}, o.Contact},
	}
	for name, f := range fields {
		if _, err := f.setting.Check(f.value); err != nil {
			faults[name] = err
		}
	}
	if faults["domain"] == nil && !isDomain(o.Domain) {
		faults["domain"] = errors.New("must be a domain name in small letters, such as example.org")
	}
	if faults["language"] == nil && !languageForm.MatchString(o.Language) {
		faults["language"] = errors.New("must be a language's short name, such as en or de")
	}
	if faults["time-zone"] == nil && !timeZoneForm.MatchString(o.TimeZone) {
		faults["time-zone"] = errors.New("must be a time zone's name, such as Europe/London")
	}
	return faults
}

// isDomain wants two labels or more, the last of which is not a number: so it is never an address.
func isDomain(text string) bool {
	last := text[strings.LastIndexByte(text, '.')+1:]
	return isName(text) && text == strings.ToLower(text) && last != text && strings.Trim(last, "0123456789") != ""
}
