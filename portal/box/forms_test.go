package box

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/portal/mail"
)

// wantDone wants the box to have been told something, or not.
func (o *office) wantDone(what string, want bool) {
	o.t.Helper()
	if got := slices.Contains(o.box.Done(), what); got != want {
		o.t.Errorf("the box was told %q: %t, want %t: %q", what, got, want, o.box.Done())
	}
}

// wantText wants a page to be there with a text.
func (o *office) wantText(status int, page string, wantStatus int, text string) {
	o.t.Helper()
	if status != wantStatus || !strings.Contains(page, text) {
		o.t.Errorf("status %d, want %d, with %q:\n%s", status, wantStatus, text, page)
	}
}

// TestSwitch switches a module on; one that the box refuses to switch off is told so.
func TestSwitch(t *testing.T) {
	o := open(t)
	o.box.Things = append(o.box.Things, api.Module{Name: "calendar", Title: "Calendar", State: "off"})
	status, page := o.send("/portal/box/modules/calendar", "/portal/box/modules/calendar/switch", "to", "on")
	o.wantText(status, page, http.StatusOK, "Calendar is switched on.")
	o.wantDone("switch calendar true", true)
	entries, err := o.deps.Audit.Recent(1, "")
	if err != nil || len(entries) != 1 || entries[0].Kind != "box.module-on" || entries[0].Actor != officer {
		t.Errorf("audit: %v %v", entries, err)
	}
	status, page = o.send("/portal/box/modules/page", "/portal/box/modules/page/switch", "to", "off")
	o.wantText(status, page, http.StatusConflict, "Welcome page is needed by Calendar")
	status, page = o.send("/portal/box/modules/page", "/portal/box/modules/none/switch", "to", "off")
	o.wantText(status, page, http.StatusNotFound, "nothing at this address")
}

// TestSettings changes one field of a form, and only that is sent. Twins: what does not fit, what the box refuses, and what
// somebody else has changed since the page was made change nothing.
func TestSettings(t *testing.T) {
	o := open(t)
	o.fill()
	const path = "/portal/box/modules/page/settings"
	form := func(fields ...string) (int, string) {
		all := []string{"shown-posts", "10", "shown-open", "yes", "shown-look", "plain"}
		return o.send(path, path, append(all, fields...)...)
	}
	status, page := form("s-posts", "20", "s-open", "yes", "s-look", "plain")
	o.wantText(status, page, http.StatusOK, "saved and in use")
	o.wantDone(`set "page" map[posts:20]`, true)
	status, page = form("s-posts", "51", "s-open", "yes", "s-look", "plain")
	o.wantText(status, page, http.StatusUnprocessableEntity, "from 1 to 50")
	status, page = form("s-posts", "10", "s-open", "yes", "s-look", "ugly")
	o.wantText(status, page, http.StatusUnprocessableEntity, "choose one of these")
	o.box.Forms["page"].Values["posts"] = 30
	status, page = form("s-posts", "20", "s-open", "yes", "s-look", "plain")
	o.wantText(status, page, http.StatusUnprocessableEntity, "changed this meanwhile, to “30”")
	status, page = form("s-posts", "10", "s-look", "plain") // an unchecked box is not sent
	o.wantText(status, page, http.StatusOK, "saved and in use")
	o.wantDone(`set "page" map[open:false]`, true)
	if n := len(o.box.Done()); n != 2 {
		t.Errorf("the box was told more: %q", o.box.Done())
	}
}

// TestUpdates goes back to the version of before only with its number typed, and only soon after a login.
func TestUpdates(t *testing.T) {
	o := open(t)
	const path = "/portal/box/updates/back"
	status, page := o.send(path, path, "confirm", "yes")
	o.wantText(status, page, http.StatusUnprocessableEntity, "type exactly this: 0.9")
	o.wantDone("update back, confirmed true", false)
	status, page = o.send(path, path, "confirm", "0.9")
	o.wantText(status, page, http.StatusAccepted, "goes back")
	o.wantDone("update back, confirmed true", true)
	status, page = o.get("/portal/box/updates", "en")
	o.wantText(status, page, http.StatusOK, "22 November 2026, 13:00") // noon in UTC
	status, page = o.send("/portal/box/updates", "/portal/box/updates/policy", "what", "window", "from", "25:00", "to", "04:00")
	o.wantText(status, page, http.StatusUnprocessableEntity, "such as 02:00")
	o.send("/portal/box/updates", "/portal/box/updates/policy", "what", "pause")
	o.wantDone(`update policy {"paused":true}`, true)
	o.send("/portal/box/updates", "/portal/box/updates/policy", "what", "source", "source", "usb:UPDATES")
	o.wantDone(`update policy {"source":"usb:UPDATES"}`, true)
}

// TestFresh wants a login of a short time ago for what is dangerous.
func TestFresh(t *testing.T) {
	o := open(t)
	o.now = o.now.Add(time.Hour)
	o.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	status, page := o.send("/portal/box/power", "/portal/box/power", "what", "restart")
	o.wantText(status, page, http.StatusSeeOther, "")
	o.wantDone("power, restart true, for "+officer, false)
	o.login()
	status, page = o.send("/portal/box/power", "/portal/box/power", "what", "restart")
	o.wantText(status, page, http.StatusAccepted, "two or three minutes")
	o.wantDone("power, restart true, for "+officer, true)
}

// TestTask runs a repair that fails, and its page says so.
func TestTask(t *testing.T) {
	o := open(t)
	status, page := o.send("/portal/box/health", "/portal/box/health/run", "kind", "repair", "module", "page", "name", "empty-cache")
	for strings.Contains(page, "This is going on") { // the job's page is asked again until it is over
		status, page = o.get("/portal/box/jobs/"+o.pages.jobs.all[0].ID, "en")
	}
	o.wantText(status, page, http.StatusOK, "did not succeed")
	o.wantText(status, page, http.StatusOK, "status 1")
	status, page = o.send("/portal/box/health", "/portal/box/health/run", "kind", "backup", "module", "page", "name", "empty-cache")
	o.wantText(status, page, http.StatusNotFound, "")
}

// TestRelay keeps a relay and its password, which goes to no other server.
func TestRelay(t *testing.T) {
	o := open(t)
	set := func(host, password string) (int, string) {
		return o.send("/portal/box/mail", "/portal/box/mail", "host", host, "port", "587", "tls", "starttls",
			"user", "club", "password", password, "from", "club@mail.example")
	}
	status, page := set("smtp.example.org", "")
	o.wantText(status, page, http.StatusUnprocessableEntity, "Please fill this in")
	status, page = set("smtp.example.org", "secret")
	o.wantText(status, page, http.StatusOK, "Outgoing mail is set up")
	if strings.Contains(page, `value="secret"`) {
		t.Error("the page shows the password")
	}
	set("smtp.example.org", "")
	if got := o.pages.relay(); got.Password != "secret" || got.TLS != mail.StartTLS {
		t.Errorf("the relay is %+v", got)
	}
	status, page = set("smtp.evil.example", "")
	o.wantText(status, page, http.StatusUnprocessableEntity, "Please fill this in")
	o.send("/portal/box/mail", "/portal/box/mail/test")
	all, err := o.pages.mail.Pending()
	if err != nil || len(all) != 1 || all[0].Message.To != "olga@mail.example" {
		t.Errorf("pending: %v %v", all, err)
	}
}

// TestBackup sets up a place, prints the sheet, and restores with the word typed.
func TestBackup(t *testing.T) {
	o := open(t)
	o.box.Saved.State = api.BackupOff
	place := []string{"kind", "s3", "address", "s3.example.org", "folder", "club", "user", "id", "secret", "key"}
	status, page := o.send("/portal/box/backup?kind=s3", "/portal/box/backup/target", place...)
	o.wantText(status, page, http.StatusOK, "0000-0000")
	o.wantText(status, page, http.StatusOK, "https://s3.example.org")
	status, page = o.send("/portal/box/backup/sheet", "/portal/box/backup/sheet")
	o.wantText(status, page, http.StatusUnprocessableEntity, "print the sheet first")
	status, page = o.send("/portal/box/backup/sheet", "/portal/box/backup/sheet", "sure", "yes")
	o.wantText(status, page, http.StatusOK, "second officer")
	const restore = "/portal/box/backup/restore"
	status, page = o.send(restore+"?kind=s3", restore, append(place, "key", "0000", "confirm", "yes")...)
	o.wantText(status, page, http.StatusUnprocessableEntity, "REPLACE EVERYTHING")
}

// TestStrangers wants none of these pages for members.
func TestStrangers(t *testing.T) {
	o := open(t)
	if err := o.deps.Directory.AppointTo(context.Background(), "treasurer", "", time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, route := range o.pages.routes() {
		if route.Access != api.Officer {
			continue
		}
		r, _ := http.NewRequest(route.Method, o.server.URL+strings.NewReplacer("{$}", "", "{", "", "}", "").Replace(route.Path), nil)
		if status, page := o.do(r); status != http.StatusForbidden {
			t.Errorf("%s for a member: %d\n%s", route.Pattern(), status, page)
		}
	}
}

// TestDomain takes a wanted domain over once it leads to the box, and not before.
func TestDomain(t *testing.T) {
	o := open(t)
	o.box.Net = api.Network{Domain: "allotment.internal", Addresses: []string{"192.0.2.1"}, Names: []api.Name{{Host: "allotment.internal"}}}
	verdict := DNSMissing
	o.pages.names.Check = func(_ context.Context, n api.Network) DNSReport {
		return DNSReport{Time: o.now, Domain: n.Domain, Results: []DNSResult{{Wish: Wishes(n)[0], Verdict: verdict},
			{Wish: Wish{Type: "SRV"}, Verdict: DNSMissing}}}
	}
	status, page := o.send("/portal/box/dns", "/portal/box/dns", "what", "want", "domain", "not a domain")
	o.wantText(status, page, http.StatusUnprocessableEntity, "This is no domain")
	status, page = o.send("/portal/box/dns", "/portal/box/dns", "what", "want", "domain", "https://www.Club.example/")
	o.wantText(status, page, http.StatusOK, "You want the domain club.example")
	for _, v := range []Verdict{DNSMissing, DNSRight} {
		verdict = v
		if err := o.pages.tryDomain(context.Background()); err != nil {
			t.Fatal(err)
		}
		o.wantDone(`set "" map[domain:club.example]`, v == DNSRight)
	}
	if w, err := o.pages.Wanted(); err != nil || w.Domain != "" {
		t.Errorf("still wanted: %+v %v", w, err)
	}
}

// TestAccounts enters costs, which only members see until officers let everybody see them.
func TestAccounts(t *testing.T) {
	o := open(t)
	const path = "/portal/box/accounts"
	fields := []string{"what", "Hosting <b>", "kind", "cost", "amount", "82,80", "currency", "eur", "date", "2026-03-01", "repeat", "", "module", ""}
	status, page := o.send(path, path, fields...)
	o.wantText(status, page, http.StatusOK, "82.80\u00a0EUR")
	o.wantText(status, page, http.StatusOK, "Hosting &lt;b&gt;")
	fields[5] = "much"
	status, page = o.send(path, path, fields...)
	o.wantText(status, page, http.StatusUnprocessableEntity, "such as 82.80")
	stranger := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	see := func() int {
		t.Helper()
		a, err := stranger.Get(o.server.URL + publicAccounts)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		return a.StatusCode
	}
	if got := see(); got != http.StatusSeeOther {
		t.Errorf("a stranger sees accounts that are not public: %d", got)
	}
	o.send(path, path+"/settings", "public", "yes")
	if got := see(); got != http.StatusOK {
		t.Errorf("a stranger does not see public accounts: %d", got)
	}
	status, page = o.get(path+"/csv", "en")
	o.wantText(status, page, http.StatusOK, "-82.80")
	id := regexp.MustCompile(`accounts/([^/"]+)/remove`).FindStringSubmatch(func() string { _, page := o.get(path, "en"); return page }())
	if id == nil {
		t.Fatal("the entry cannot be removed")
	}
	status, page = o.send(path, path+"/"+id[1]+"/remove")
	o.wantText(status, page, http.StatusOK, "Nothing was entered")
	status, page = o.send(path, path+"/"+id[1]+"/remove")
	o.wantText(status, page, http.StatusNotFound, "")
}
