package programs_test

import (
	"strings"
	"testing"
	"time"

	"allotment/modules/directory/directorytest"
	"allotment/portal/portaltest"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

const path = "/portal/programs"

// TestPrograms has an officer let a program ask, give it another secret and end it; a member must not see the page.
func TestPrograms(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	if page := p.LogIn(t, portaltest.Member).Get(path); page.Status != 403 {
		t.Errorf("a member gets status %d", page.Status)
	}
	b := p.LogIn(t, portaltest.Officer)
	fields := []string{"title", "Shop", "id", "shop", "redirect", "https://shop.example/callback"}
	first := b.Send(path, fields...)
	if first.Status != 200 || !first.Says("The program shop may ask now") || secretOf(first) == "" {
		t.Fatalf("status %d: %s", first.Status, first.Words())
	}
	if page := b.Send(path, fields...); !page.Says("Another program is known by this name") {
		t.Errorf("once more: %s", page.Words())
	}
	fields[3] = "other"
	if page := b.Send(path, fields[:4]...); page.Says("other may ask now") {
		t.Errorf("without an address: %s", page.Words())
	}
	fields[5] = "javascript:alert(1)"
	if page := b.Send(path, fields...); !page.Says("This does not work") {
		t.Errorf("with a script for an address: %s", page.Words())
	}
	second := b.Send(path + "/shop/secret")
	if second.Status != 200 || secretOf(second) == "" || secretOf(second) == secretOf(first) {
		t.Errorf("another secret: status %d: %s", second.Status, second.Words())
	}
	if page := b.Get(path); !page.Says("Known as shop") || strings.Contains(page.Text, secretOf(second)) {
		t.Errorf("the list: %s", page.Words())
	}
	if page := b.Send(path + "/shop/remove"); page.Status != 200 || page.Says("Known as shop") {
		t.Errorf("removed: status %d: %s", page.Status, page.Words())
	}
	for _, rest := range []string{"/shop/remove", "/shop/secret"} {
		if page := b.Send(path + rest); page.Status != 404 {
			t.Errorf("%s of a program that is not there: status %d", rest, page.Status)
		}
	}
	p.Advance(time.Hour)
	fields[5] = "https://shop.example/callback"
	if page := b.Send(path, fields...); page.Says("other may ask now") {
		t.Errorf("an hour after the login: %s", page.Words())
	}
	if page := p.LogIn(t, portaltest.Officer).Get("/portal/people/log"); !page.Says("lets the program shop ask who visitors are") {
		t.Errorf("the log: %s", page.Words())
	}
}

// secretOf is the secret that a page shows: the second code after the issuer.
func secretOf(page *portaltest.Page) string {
	n := 0
	for node := range page.All("p") {
		if portaltest.Attr(node, "class") != "code" {
			continue
		}
		if n++; n == 2 {
			return node.FirstChild.Data
		}
	}
	return ""
}
