package box

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"allotment/api"
	"allotment/image"
	"allotment/init/apiserver"
	"allotment/init/apiserver/boxtest"
	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/web"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

// office is the portal with these pages, on a real directory and a box in memory, and an officer's browser.
type office struct {
	t       *testing.T
	box     *boxtest.Box
	pages   *Pages
	deps    web.Deps
	server  *httptest.Server
	browser *http.Client
	now     time.Time

	address, password string // of the directory
}

const officer = "olga"

func open(t *testing.T) *office {
	t.Helper()
	address, password := directorytest.Start(t)
	o := &office{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), address: address, password: password}
	o.box = boxtest.New(o.now)
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	clock := func() time.Time { return o.now }
	o.deps = web.Deps{
		Config:       func() config.Config { return config.Config{Domain: "club.example", TimeZone: "Europe/Berlin"} },
		Organisation: func() string { return "Garden Club" },
		Directory:    directory.Open(address, func() (string, error) { return password, nil }),
		DB:           db, Audit: audit.New(db, clock), Sessions: session.New(db, clock, func() bool { return false }),
		Box: api.Unix(serve(t, o.box)), Clock: clock, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() { o.deps.Box.Close(); o.deps.Directory.Close() })
	ctx := context.Background()
	for _, err := range []error{
		o.deps.Directory.AddPerson(ctx, directory.Person{Name: officer, Given: "Olga", OutsideMail: "olga@mail.example"}),
		o.deps.Directory.AppointTo(ctx, "treasurer", officer, time.Time{}, time.Time{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o.pages = New(o.deps, mail.New(db, func() mail.Relay { return mail.StoredRelay(db) }, clock, o.deps.Log))
	site, err := web.New(o.deps, o.pages.Section())
	if err != nil {
		t.Fatal(err)
	}
	o.pages.Say = site.Say
	o.server = httptest.NewServer(site)
	t.Cleanup(o.server.Close)
	o.login()
	return o
}

// serve answers the API for the box on a unix socket, for officers as the portal is one.
func serve(t *testing.T, b *boxtest.Box) string {
	t.Helper()
	s, err := apiserver.New(apiserver.Config{Box: b, Access: map[uint32]api.Access{uint32(os.Getuid()): api.Officer}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "box") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	l, err := apiserver.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return path
}

func (o *office) login() {
	o.t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", o.server.URL, nil)
	if _, err := o.deps.Sessions.Begin(w, r, officer, session.Password); err != nil {
		o.t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	at, _ := url.Parse(o.server.URL)
	jar.SetCookies(at, w.Result().Cookies())
	o.browser = &http.Client{Jar: jar}
}

// get reads a page in a language.
func (o *office) get(path, language string) (int, string) {
	o.t.Helper()
	r, _ := http.NewRequest("GET", o.server.URL+path, nil)
	r.Header.Set("Accept-Language", language)
	return o.do(r)
}

func (o *office) do(r *http.Request) (int, string) {
	o.t.Helper()
	a, err := o.browser.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

var tokenField = regexp.MustCompile(`name="` + web.TokenField + `" value="([^"]+)"`)

// send sends a form of the page at from, and returns the page that follows.
func (o *office) send(from, to string, fields ...string) (int, string) {
	o.t.Helper()
	_, page := o.get(from, "en")
	found := tokenField.FindStringSubmatch(page)
	if found == nil {
		o.t.Fatalf("%s has no form:\n%s", from, page)
	}
	v := url.Values{web.TokenField: {found[1]}}
	for i := 0; i < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	r, _ := http.NewRequest("POST", o.server.URL+to, strings.NewReader(v.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept-Language", "en")
	return o.do(r)
}

// untold finds keys of messages that a page shows instead of words.
var untold = regexp.MustCompile(`\b(box|module|setting|task|form|problem|layout|audit)\.[a-z]+[a-z0-9.-]*`)

// TestPages reads every page in every language: they are there, and no word is missing.
func TestPages(t *testing.T) {
	o := open(t)
	o.fill()
	for _, route := range o.pages.routes() {
		if route.Method != "GET" || route.Path == "/portal/box/jobs/{id}" || strings.HasSuffix(route.Path, "/export") {
			continue
		}
		path := strings.NewReplacer("{$}", "", "{module}", "page", "{number}", "1").Replace(route.Path)
		if route.Path == firstPath || strings.HasSuffix(route.Path, "/csv") {
			continue
		}
		for _, query := range []string{"", "?kind=s3", "?kind=usb"} {
			for _, language := range []string{"en", "de"} {
				status, page := o.get(path+query, language)
				if status != http.StatusOK {
					t.Errorf("%s%s in %s: status %d\n%s", path, query, language, status, page)
				}
				if key := untold.FindString(strings.ReplaceAll(page, "/portal/box/", "")); key != "" {
					t.Errorf("%s%s in %s shows %q", path, query, language, key)
				}
				if !strings.Contains(page, `lang="`+language+`"`) {
					t.Errorf("%s%s is not in %s", path, query, language)
				}
			}
		}
	}
}

// TestModulesAreTold wants words in all languages for what the modules of this release declare.
func TestModulesAreTold(t *testing.T) {
	words, err := web.ReadMessages(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := words.Complete(); err != nil {
		t.Error(err)
	}
	declarations, err := filepath.Glob("../../modules/*/module.toml")
	if err != nil || len(declarations) == 0 {
		t.Fatalf("%d modules, %v", len(declarations), err)
	}
	for _, path := range declarations {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var m image.Module
		if err := toml.Unmarshal(b, &m); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		keys := []string{"module." + m.Name + ".title", "module." + m.Name + ".about"}
		for _, s := range m.Settings {
			keys = append(keys, "setting."+m.Name+"."+s.Name+".title")
			if s.Help != "" {
				keys = append(keys, "setting."+m.Name+"."+s.Name+".help")
			}
		}
		for _, r := range m.Repairs {
			keys = append(keys, "task."+m.Name+"."+r.Name+".title", "task."+m.Name+"."+r.Name+".help")
		}
		for _, j := range m.Journeys {
			keys = append(keys, "task."+m.Name+"."+j.Name+".title")
		}
		for _, key := range keys {
			if !words.Has(key) {
				t.Errorf("portal/box/messages lack %q", key)
			}
		}
	}
}

// fill gives every page something to show.
func (o *office) fill() {
	o.t.Helper()
	yes := true
	o.box.Net = api.Network{Domain: "club.example", Addresses: []string{"192.0.2.1"},
		Authority: "AA:BB", Certificates: []api.Certificate{{Names: []string{"club.example"}, Until: o.now.AddDate(0, 2, 0)}},
		Names: []api.Name{{Host: "club.example"}}, Records: []api.Record{{Module: "page", Host: "_x._tcp.club.example", Type: "SRV", Value: "0 5 1 a."}}}
	o.box.Updates.Checked, o.box.Updates.Policy = o.now, api.UpdatePolicy{Paused: &yes}
	o.box.Forms["page"] = api.Settings{Form: []image.Setting{{Name: "posts", Title: "Posts", Type: "integer", Min: 1, Max: 50},
		{Name: "open", Title: "Open", Type: "boolean"}, {Name: "look", Title: "Look", Type: "choice", Choices: []string{"plain", "gay"}}},
		Values: map[string]any{"posts": 10, "open": true, "look": "plain"}}
	o.box.Saved = api.BackupStatus{State: api.BackupIdle, KeySheet: true, Lamp: api.Lamp{Level: api.Good},
		Target: &api.BackupTarget{Kind: "s3", Address: "https://s3.example"}, Last: &api.BackupRun{Problem: "the disk was full"},
		Good: &api.BackupRun{Time: o.now, OK: true, Files: 3}, Proven: o.now,
		Proof: &api.BackupProof{Time: o.now, OK: true, Modules: []api.BackupModuleProof{{Module: "page", OK: true, Steps: "verify"}}}}
	for i := range 30 {
		r := o.box.Use
		r.Time, r.Uptime = o.now.Add(time.Duration(i-30)*time.Minute), r.Uptime+60*float64(i)
		r.CPU += 30 * float64(i)
		if err := o.pages.history.Take(r); err != nil {
			o.t.Fatal(err)
		}
	}
	m := mail.Message{To: "anna@mail.example", Subject: "Invitation", Text: "Come.\n", Language: "en"}
	if err := o.pages.mail.Send(context.Background(), m); err != nil {
		o.t.Fatal(err)
	}
}
