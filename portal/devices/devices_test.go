package devices_test

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/portaltest"
	"allotment/portal/setup"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

// withDevices is a portal with calendar and chat.
func withDevices(t *testing.T) (*portaltest.Portal, *portaltest.Browser, url.Values) {
	t.Helper()
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	b := p.LogIn(t, portaltest.Member)
	token := url.Values{"form_token": {b.Token()}}
	p.Config.Modules = append(p.Config.Modules, config.Module{Name: "calendar", Path: "/calendar/"}, config.Module{Name: "chat", Path: "/chat/"})
	return p, b, token
}

var appPassword = regexp.MustCompile(`app(-[0-9a-z]{4}){5}`)

func TestDevices(t *testing.T) {
	p, b, token := withDevices(t)
	if page := b.Get("/portal/devices"); page.Status != 200 || !page.Says("nothing to set up yet") {
		t.Errorf("without HTTPS: %d %s", page.Status, page.Words())
	}
	p.Config.Origin = strings.Replace(p.URL, "http:", "https:", 1)
	for _, d := range setup.Devices() {
		path := "/portal/devices/" + string(d)
		if page := b.Get("/portal/devices"); !strings.Contains(page.Text, `href="`+path+`"`) {
			t.Errorf("no link to %s: %s", path, page.Text)
		}
		page := b.Get(path)
		if page.Status != 200 || strings.Contains(page.Text, "ZgotmplZ") || appPassword.MatchString(page.Text) {
			t.Errorf("%s: %d %s", path, page.Status, page.Text)
		}
		page = b.Post(path, token)
		secret := appPassword.FindString(page.Text)
		if page.Status != 200 || secret == "" || !directory.IsAppPassword(secret) {
			t.Errorf("%s: %d %s", path, page.Status, page.Text)
		}
		if page := b.Get(path + "/qr.svg"); page.Status != 200 || page.Header.Get("Content-Type") != "image/svg+xml" {
			t.Errorf("%s: %d %v", path, page.Status, page.Header)
		}
		page = b.Post(path+"/profile", token)
		if apple := d == setup.Apple || d == setup.Mac; apple != (page.Status == 200) {
			t.Errorf("%s: profile %d", path, page.Status)
		} else if apple && (page.Header.Get("Content-Type") != setup.ProfileType || page.Header.Get("Cache-Control") != "no-store" ||
			!strings.Contains(page.Text, "/calendar/"+portaltest.Member+"/") || !appPassword.MatchString(page.Text)) {
			t.Errorf("%s: %v %s", path, page.Header, page.Text)
		}
	}
	all, err := p.Directory.AppPasswords(context.Background(), portaltest.Member)
	if err != nil || len(all) != 6 || !strings.Contains(all[0].Label, "20") {
		t.Errorf("%v, error %v", all, err)
	}
	if page := b.Get("/portal/devices/toaster"); page.Status != 404 {
		t.Errorf("another device: %d", page.Status)
	}
}

// TestEnough makes passwords until there are too many: the page and the profile then say so.
func TestEnough(t *testing.T) {
	p, b, token := withDevices(t)
	p.Config.Origin = strings.Replace(p.URL, "http:", "https:", 1)
	for range 20 {
		if _, _, err := p.Directory.AddAppPassword(context.Background(), portaltest.Member, "tablet", p.Deps().Clock().AddDate(1, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/portal/devices/android", "/portal/devices/apple/profile"} {
		if page := b.Post(path, token); page.Status != 422 || !page.Says("20 passwords") || appPassword.MatchString(page.Text) {
			t.Errorf("%s: %d %s", path, page.Status, page.Words())
		}
	}
}
