package certs

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/gateway"
)

const day = 24 * time.Hour

// TestIssue gets certificates for names, and for modules.
func TestIssue(t *testing.T) {
	w := newWorld(t, []string{"Club.org.", "portal.club.org", "box.internal", "192.168.1.2"})
	w.config.Modules = map[string][]string{
		"mail": {"club.org"}, "chat": {"club.org", "rooms.club.org"}, "directory": {"directory.internal"},
	}
	w.configure()
	if w.certificate("club.org").Issuer.CommonName != "Allotment server, own authority" {
		t.Error("before the authority was asked, there is another certificate than the box's own")
	}
	w.look()
	club := w.verify("club.org.pem", "club.org")
	w.verify("portal.club.org.pem", "portal.club.org")
	w.verify("module-chat.pem", "club.org", "rooms.club.org")
	w.verify("modules/chat.pem", "club.org", "rooms.club.org")
	if !club.Equal(w.verify("modules/mail.pem", "club.org")) {
		t.Error("a module with one name has another certificate than the name")
	}
	if _, err := os.Stat(filepath.Join(w.folder, "modules", "directory.pem")); err == nil {
		t.Error("a module with an inner name has a certificate")
	}
	if !w.certificate("CLUB.org").Equal(club) || w.certificate("box.internal").Equal(club) || w.certificate("").Equal(club) {
		t.Error("the wrong names get a certificate")
	}
	told, err := gateway.ReadStatus(w.folder)
	if all := told.Certificates; err != nil || len(all) != 3 || all[0].Until.IsZero() || all[0].Why != "" {
		t.Errorf("others are told %+v, %v", told, err)
	}
	own, _ := pem.Decode(w.keeper.Authority())
	if sum := sha256.Sum256(own.Bytes); strings.ReplaceAll(told.Authority, ":", "") != fmt.Sprintf("%X", sum) {
		t.Errorf("the own authority's fingerprint is %q", told.Authority)
	}
	if got := w.keeper.Trust("club.org"); got != (Trust{Public: true}) {
		t.Errorf("%+v", got)
	}
	if got := w.keeper.Trust("box.internal"); got.Public {
		t.Errorf("%+v", got)
	}

	// Another keeper, as after a restart, has them at once and asks for nothing.
	before := w.orders.Load()
	again, err := New(w.folder, w.now, w.log())
	if err != nil {
		t.Fatal(err)
	}
	w.keeper = again
	w.configure()
	if !w.certificate("club.org").Equal(club) {
		t.Error("the certificate is lost at a restart")
	}
	if w.look(); w.orders.Load() != before {
		t.Error("there are orders after a restart")
	}
}

// TestChallengesMatter is the twin of TestIssue: the authority does look whether names lead to the box.
func TestChallengesMatter(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.mute.Store(true)
	w.configure()
	w.look()
	if s := w.keeper.Status().Certificates; len(s) != 1 || s[0].Failures != 1 || s[0].Error == "" || !s[0].Until.IsZero() ||
		s[0].Why != gateway.WhyElsewhere {
		t.Errorf("%+v", s)
	}
	w.mute.Store(false)
	w.look()
	if s := w.keeper.Status().Certificates; s[0].Failures != 1 {
		t.Errorf("it was tried again without a pause: %+v", s)
	}
	w.pass(refused.first + refused.first/4)
	w.look()
	if s := w.keeper.Status().Certificates; s[0].Failures != 0 || s[0].Error != "" || s[0].Until.IsZero() {
		t.Errorf("%+v", s)
	}
}

// TestRenew renews when a third of a life is left, and hands the new certificate out.
func TestRenew(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.config.Modules = map[string][]string{"mail": {"club.org"}}
	w.configure()
	w.look()
	first := w.verify("club.org.pem")
	w.pass(40 * day)
	w.look()
	if !w.verify("club.org.pem").Equal(first) {
		t.Error("renewed too early")
	}
	w.pass(23 * day)
	w.look()
	second := w.verify("modules/mail.pem")
	if second.Equal(first) || !second.Equal(w.certificate("club.org")) {
		t.Error("not renewed, or not handed out")
	}
	if got := w.keeper.Trust("club.org"); got != (Trust{Public: true, Renewed: true}) {
		t.Errorf("%+v", got)
	}
}

// TestReplacedIsUnknown renews at an authority that refuses to replace a certificate which it does not know.
func TestReplacedIsUnknown(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.configure()
	w.look()
	first := w.verify("club.org.pem", "club.org")
	w.forgets.Store(true)
	w.pass(61 * day)
	w.look()
	if w.verify("club.org.pem", "club.org").Equal(first) {
		t.Error("not renewed at the first attempt")
	}
	if w.refused.Load() == 0 {
		t.Error("the authority was not told which certificate is replaced")
	}
	if s := w.keeper.Status().Certificates; s[0].Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRenewalInformation renews when the authority says so (RFC 9773), and not when it says later.
func TestRenewalInformation(t *testing.T) {
	w := newWorld(t, []string{"club.org", "late.org"})
	w.configure()
	w.look()
	early, late := w.verify("club.org.pem"), w.verify("late.org.pem")
	w.suggest(early, w.now().Add(5*day), w.now().Add(6*day))
	w.suggest(late, w.now().Add(70*day), w.now().Add(71*day))
	w.pass(day)
	w.look()
	if !w.verify("club.org.pem").Equal(early) {
		t.Error("renewed before the suggested time")
	}
	w.pass(5 * day)
	w.look()
	if w.verify("club.org.pem").Equal(early) {
		t.Error("not renewed at the suggested time")
	}
	w.pass(60 * day) // day 66: a third of its life is left since day 60
	w.look()
	if !w.verify("late.org.pem").Equal(late) {
		t.Error("renewed before the suggested time")
	}
	w.pass(6 * day)
	w.look()
	if w.verify("late.org.pem").Equal(late) {
		t.Error("not renewed at the suggested time")
	}
}

// TestSuggestionsAreNotFollowedBlindly renews before the end whatever the authority says.
func TestSuggestionsAreNotFollowedBlindly(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.configure()
	w.look()
	first := w.verify("club.org.pem")
	w.suggest(first, w.now().Add(1000*day), w.now().Add(1001*day))
	w.pass(day)
	w.look()
	w.pass(85 * day) // a twentieth of 90 days is left
	w.look()
	if w.verify("club.org.pem").Equal(first) {
		t.Error("the certificate ends because the authority suggested a later renewal")
	}
}

// TestOneNameFails has a name that leads nowhere beside nine that go on for ever.
func TestOneNameFails(t *testing.T) {
	names := []string{"lost.org"}
	for i := range 9 {
		names = append(names, fmt.Sprintf("name%d.org", i))
	}
	w := newWorld(t, names)
	w.lost.Store("lost.org", true)
	w.configure()
	for range 6 {
		w.look()
		w.pass(14 * day)
	}
	for _, s := range w.keeper.Status().Certificates {
		if s.Names[0] == "lost.org" {
			if s.Failures != 6 || !s.Until.IsZero() {
				t.Errorf("%+v", s)
			}
			continue
		}
		if s.Failures != 0 || s.Until.Before(w.now()) || !w.keeper.Trust(s.Names[0]).Renewed {
			t.Errorf("%+v", s)
		}
	}
	w.lost.Delete("lost.org")
	w.pass(day)
	w.look()
	w.verify("lost.org.pem", "lost.org") // at the next attempt
}

// TestAuthorityIsDown lets the authority be away for a week in which a certificate is to be renewed.
func TestAuthorityIsDown(t *testing.T) {
	w := newWorld(t, []string{"club.org", "new.org"})
	w.lost.Store("new.org", true)
	w.configure()
	w.look()
	first := w.certificate("club.org")
	w.lost.Delete("new.org")
	w.pass(61 * day)
	w.down.Store(true)
	for range 7 * 24 * 6 {
		w.look()
		w.pass(10 * time.Minute)
		if !w.certificate("club.org").Equal(first) {
			t.Fatal("the certificate is not served any more")
		}
	}
	for _, s := range w.keeper.Status().Certificates {
		if s.Failures < 25 || s.Failures > 60 || s.Why != gateway.WhyAway {
			t.Errorf("%d attempts in a week, %q", s.Failures, s.Why)
		}
	}
	w.down.Store(false)
	w.pass(usual.last + usual.last/4)
	w.look()
	if w.certificate("club.org").Equal(first) {
		t.Error("not renewed when the authority is back")
	}
	w.verify("new.org.pem", "new.org")
}

// TestClockIsWrong starts a box that believes in 1970, and one in 2040.
func TestClockIsWrong(t *testing.T) {
	for _, wrong := range []time.Time{time.Unix(100, 0), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)} {
		t.Run(wrong.UTC().Format("2006"), func(t *testing.T) {
			w := newWorld(t, []string{"club.org"})
			w.set(wrong)
			w.configure()
			w.look()
			if s := w.keeper.Status().Certificates; s[0].Failures != 1 {
				t.Errorf("%+v", s)
			}
			if wrong.Before(epoch) && w.certificate("club.org").NotBefore.Before(epoch.Add(-skew)) {
				t.Error("the box's own certificate is from before there were any")
			}
			w.set(time.Now())
			w.look()
			first := w.verify("club.org.pem", "club.org") // at once: the pause was by another clock
			if own := w.certificate("box.internal"); time.Now().Before(own.NotBefore) || time.Now().After(own.NotAfter) {
				t.Errorf("the box's own certificate is of %v", own.NotBefore)
			}

			// With a certificate that is good, a wrong clock changes nothing for visitors.
			w.set(wrong)
			w.look()
			if c := w.certificate("club.org"); c.Issuer.CommonName != first.Issuer.CommonName {
				t.Errorf("a good certificate is not served while the clock is wrong, but one by %v", c.Issuer)
			}
		})
	}
}

// TestAddress gets a certificate for an address, if the authority has a profile for that.
func TestAddress(t *testing.T) {
	for profile, want := range map[string]bool{addressProfile: true, "other": false} {
		t.Run(profile, func(t *testing.T) {
			w := newWorld(t, nil, profile)
			w.configure()
			// Which no public authority would certify.
			w.keeper.subjects = []*subject{{names: []string{"127.0.0.1"}, file: "127.0.0.1"}}
			w.look()
			s := w.keeper.Status().Certificates[0]
			if (s.Error == "") != want || s.Until.IsZero() == want {
				t.Fatalf("%+v", s)
			}
			if want {
				if c := w.verify("127.0.0.1.pem", "127.0.0.1"); c.NotAfter.After(w.now().Add(8 * day)) {
					t.Error("not by the profile for addresses")
				}
			}
		})
	}
}

// TestAccountIsLost lets the authority forget the box, as one that was set up anew does.
func TestAccountIsLost(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.configure()
	w.look()
	other := newWorld(t, nil)
	w.config.Directory, w.rootPEM = other.config.Directory, other.rootPEM
	other.keeper = w.keeper // which answers its challenges
	w.config.Names = append(w.config.Names, "new.org")
	w.configure()
	w.look()
	if s := w.keeper.Status().Certificates; slices.ContainsFunc(s, func(s gateway.Certificate) bool { return s.Until.IsZero() }) {
		t.Errorf("%+v", s)
	}
}

// TestContactIsRefused has an address that no authority takes.
func TestContactIsRefused(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.config.Email = "the chair"
	w.configure()
	w.look()
	w.verify("club.org.pem", "club.org")
}

func TestPublic(t *testing.T) {
	for name, want := range map[string]bool{
		"club.org": true, "a.b.club.org": true, "club": false, "box.local": false, "box.internal": false,
		"x.home.arpa": false, "": false,
		"localhost": false, ".org": false, "a..org": false, "../x.org": false, "club.org/x": false,
		"192.168.1.2": false, "10.0.0.1": false, "127.0.0.1": false, "100.64.1.1": false, "192.0.2.1": false, "169.254.1.1": false,
		"9.9.9.9": true, "2620:fe::fe": true, "fe80::1": false, "fd00::1": false, "2001:db8::1": false, "::": false,
	} {
		if public(name) != want {
			t.Errorf("public(%q) is not %v", name, want)
		}
	}
}
