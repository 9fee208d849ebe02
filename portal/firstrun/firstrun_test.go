package firstrun

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/apiserver"
	"allotment/init/apiserver/boxtest"
	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/mail"
	"allotment/portal/onboard"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/web"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

const code = "ABCD-EFGH-JK01"

// run is a first run on a real directory and a box in memory.
type run struct {
	t       *testing.T
	box     *boxtest.Box
	db      *store.DB
	deps    web.Deps
	service *Service
	server  *httptest.Server
	now     time.Time
	claim   string // file
}

func begin(t *testing.T) *run {
	t.Helper()
	r := &run{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	r.box = boxtest.New(r.now)
	r.box.Things = append(r.box.Things, api.Module{Name: "calendar", Title: "Calendar", State: "off", Needs: []string{"page"}})
	r.box.Things[0].Memory.Typical = 256
	r.box.Forms[""] = api.Settings{Form: form("name", "domain", "language", "time-zone", "contact"),
		Values: map[string]any{"name": "", "time-zone": "Etc/UTC"}}
	dir := t.TempDir()
	r.claim = filepath.Join(dir, "claim")
	if err := os.WriteFile(r.claim, []byte(code+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.db, err = store.Open(filepath.Join(dir, "portal.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.db.Close() })
	address, password := directorytest.Start(t)
	clock := func() time.Time { return r.now }
	settings := func() config.Config { return config.Config{Claim: r.claim, Domain: "allotment.internal"} }
	r.deps = web.Deps{
		Config: settings, Organisation: func() string { return "Garden Club" }, DB: r.db,
		Directory: directory.Open(address, func() (string, error) { return password, nil }),
		Audit:     audit.New(r.db, clock), Sessions: session.New(r.db, clock, func() bool { return false }),
		Box: api.Unix(serve(t, r.box)), Clock: clock, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() { r.deps.Box.Close(); r.deps.Directory.Close() })
	r.deps.Login = login.New(login.Deps{Directory: r.deps.Directory, DB: r.db, Audit: r.deps.Audit, Sessions: r.deps.Sessions,
		Config: settings, Now: clock})
	r.restart()
	return r
}

func form(names ...string) []image.Setting {
	var all []image.Setting
	for _, n := range names {
		all = append(all, image.Setting{Name: n, Title: n, Type: "string"})
	}
	return all
}

// restart is what a restart of the portal is for this package: only the database and the box remember.
func (r *run) restart() {
	r.t.Helper()
	queue := mail.New(r.db, func() mail.Relay { return mail.Relay{} }, r.deps.Clock, r.deps.Log)
	inviter := onboard.New(onboard.Deps{DB: r.db, Directory: r.deps.Directory, Mail: queue, Now: r.deps.Clock, Log: r.deps.Log,
		Texts: mail.NewTexts(nil), Origin: func() string { return "" }, Organisation: r.deps.Organisation})
	machine := box.New(r.deps, queue)
	var err error
	if r.service, err = New(r.deps, machine, inviter); err != nil {
		r.t.Fatal(err)
	}
	r.deps.Unclaimed = r.service.Unclaimed
	site, err := web.New(r.deps, r.service.Section(), machine.Section())
	if err != nil {
		r.t.Fatal(err)
	}
	if r.server != nil {
		r.server.Config.Handler = site
		return
	}
	r.server = httptest.NewServer(site)
	r.t.Cleanup(r.server.Close)
}

func serve(t *testing.T, b *boxtest.Box) string {
	t.Helper()
	s, err := apiserver.New(apiserver.Config{Box: b, Access: map[uint32]api.Access{uint32(os.Getuid()): api.Officer}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "first")
	if err != nil {
		t.Fatal(err)
	}
	l, err := apiserver.ListenUnix(filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return filepath.Join(dir, "api.sock")
}

// browser is one device.
type browser struct {
	*run
	http     *http.Client
	language string
}

func (r *run) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &browser{r, &http.Client{Jar: jar}, "en"}
}

func (b *browser) get(path string) (int, string) {
	b.t.Helper()
	r, _ := http.NewRequest("GET", b.server.URL+path, nil)
	return b.do(r)
}

func (b *browser) do(r *http.Request) (int, string) {
	b.t.Helper()
	r.AddCookie(&http.Cookie{Name: "language", Value: b.language})
	a, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if key := untold.FindString(strings.ReplaceAll(string(text), "/portal/first/", "")); key != "" {
		b.t.Errorf("%s in %s shows %q", r.URL, b.language, key)
	}
	return a.StatusCode, string(text)
}

var (
	untold   = regexp.MustCompile(`\b(firstrun|box|module|setting|form|problem|layout)\.[a-z]+[a-z0-9.-]*`)
	token    = regexp.MustCompile(`name="` + web.TokenField + `" value="([^"]+)"`)
	revised  = regexp.MustCompile(`name="revision" value="([0-9]+)"`)
	headings = regexp.MustCompile(`<h1>([^<]*)</h1>`)
)

// send sends a form of the page that is shown at from, and returns the page that follows.
func (b *browser) send(from, to string, fields ...string) (int, string) {
	b.t.Helper()
	_, page := b.get(from)
	return b.sendOf(page, to, fields...)
}

// sendOf sends a form of a page that was read before.
func (b *browser) sendOf(page, to string, fields ...string) (int, string) {
	b.t.Helper()
	found := token.FindStringSubmatch(page)
	if found == nil {
		b.t.Fatalf("no form:\n%s", page)
	}
	v := url.Values{web.TokenField: {found[1]}}
	if n := revised.FindStringSubmatch(page); n != nil {
		v.Set("revision", n[1])
	}
	for i := 0; i < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	r, _ := http.NewRequest("POST", b.server.URL+to, strings.NewReader(v.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

// want wants a page with a heading and a text.
func (b *browser) want(status int, page, heading, text string) {
	b.t.Helper()
	got := headings.FindStringSubmatch(page)
	if status >= 500 || got == nil || !strings.Contains(got[1], heading) || !strings.Contains(page, text) {
		b.t.Fatalf("status %d, want page %q with %q:\n%s", status, heading, text, page)
	}
}

func (b *browser) enter(code string) (int, string) {
	b.t.Helper()
	return b.send("/portal/first/", "/portal/first/claim", "code", code)
}

var olga = []string{"given", "Olga", "family", "Öberst", "mail", "olga@mail.example", "office", "treasurer",
	"password", "tomatoes and beans", "again", "tomatoes and beans"}

// claimed is a browser whose visitor has become the first officer.
func (r *run) claimed() *browser {
	r.t.Helper()
	b := r.browser()
	status, page := b.enter(code)
	b.want(status, page, "Who are you?", "")
	status, page = b.sendOf(page, "/portal/first/officer", olga...)
	b.want(status, page, "If you ever cannot get in", "")
	return b
}

// TestWhole goes through all steps, and looks at each of them in both languages.
func TestWhole(t *testing.T) {
	r := begin(t)
	status, page := r.browser().get("/portal/box/") // nothing else is open
	r.browser().want(status, page, "Welcome to your server", "")
	b := r.claimed()
	if !slices.Contains(r.box.Done(), "claimed") {
		t.Error("the box was not told that it is claimed")
	}
	ctx := context.Background()
	p, err := r.deps.Directory.Person(ctx, "olga.oeberst")
	if err != nil || p.OutsideMail != "olga@mail.example" || !slices.Contains(p.Groups, "officers") {
		t.Errorf("the officer is %+v, %v", p, err)
	}
	if ok, err := r.deps.Directory.HoldsOffice(ctx, p.Name, r.now); err != nil || !ok {
		t.Errorf("she holds an office: %t, %v", ok, err)
	}
	status, page = b.send("/portal/first/recovery", "/portal/first/recovery", "what", "done", "sure", "yes")
	b.want(status, page, "If you ever cannot get in", "make the codes first")
	_, page = b.sendOf(page, "/portal/first/recovery", "what", "print")
	if n := strings.Count(page, "<li><code>"); n != 10 {
		t.Errorf("%d codes are shown, want 10", n)
	}
	status, page = b.sendOf(page, "/portal/first/recovery", "what", "done", "sure", "yes")
	b.want(status, page, "A second officer", "")
	status, page = b.sendOf(page, "/portal/first/second", "what", "invite")
	b.want(status, page, "A second officer", r.server.URL+"/portal/")
	status, page = b.sendOf(page, "/portal/first/second", "what", "done")
	b.want(status, page, "What is your organisation?", "Garden or allotment club")
	status, page = b.sendOf(page, "/portal/first/organisation", "name", "Green Thumbs", "kind", "garden-club", "zone", "Europe/London")
	b.want(status, page, "What shall the server do?", "25 %")
	if g, err := r.deps.Directory.Group(ctx, "workdays"); err != nil || g.Title != "Work days" || !slices.Contains(g.Owners, p.Name) {
		t.Errorf("the group is %+v, %v", g, err)
	}
	status, page = b.sendOf(page, "/portal/first/modules", "module", "page", "module", "calendar")
	b.want(status, page, "name on the internet", "")
	status, page = b.sendOf(page, "/portal/first/domain", "what", "want", "domain", "club.example")
	b.want(status, page, "Where shall backups go?", "")
	status, page = b.sendOf(page, "/portal/first/backup")
	b.want(status, page, "Invite members", "")
	status, page = b.sendOf(page, "/portal/first/invite", "what", "link")
	b.want(status, page, "Invite members", `class="qr"`)
	status, page = b.sendOf(page, "/portal/first/invite", "what", "done")
	b.want(status, page, "Your server is ready", "Backup")
	for _, language := range []string{"en", "de"} {
		b.language = language
		for _, step := range Steps()[2:] {
			if status, page := b.get(root + string(step)); status != http.StatusOK || !strings.Contains(page, `<html lang="`+language+`"`) {
				t.Errorf("%s in %s: %d", step, language, status)
			}
		}
	}
	want := []string{"claimed", `set "" map[contact: language:en name:Green Thumbs time-zone:Europe/London]`, "switch calendar true"}
	if got := r.box.Done(); !slices.Equal(got, want) {
		t.Errorf("the box was told %q, want %q", got, want)
	}
}

// TestCode slows down after ten wrong codes and locks after a hundred; a restart of the portal does not forget.
func TestCode(t *testing.T) {
	r := begin(t)
	b := r.browser()
	for range freeTries {
		status, page := b.enter("AAAA-AAAA-AAAA")
		b.want(status, page, "Welcome", "not the claim code")
	}
	status, page := b.enter(code)
	b.want(status, page, "Welcome", "Please wait")
	r.restart()
	status, page = b.enter(code)
	b.want(status, page, "Welcome", "Please wait")
	r.now = r.now.Add(longestWait)
	status, page = b.enter(strings.ToLower(strings.NewReplacer("-", " ", "0", "o", "1", "L").Replace(code)))
	b.want(status, page, "Who are you?", "")
	for r.box.Claim().Wrong < mostTries {
		r.now = r.now.Add(longestWait)
		r.browser().enter("x")
	}
	r.restart()
	r.now = r.now.Add(24 * time.Hour)
	status, page = r.browser().enter(code)
	b.want(status, page, "Welcome", "it is locked")
	r.box.Claims.Wrong = 0 // the box was started again
	status, page = r.browser().enter(code)
	b.want(status, page, "Who are you?", "")
}

// TestNoCode says so where the box knows none, and takes no empty one.
func TestNoCode(t *testing.T) {
	r := begin(t)
	b := r.browser()
	for _, content := range []string{"", "--- \n"} {
		if err := os.WriteFile(r.claim, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.service.Claim(context.Background(), content); !errors.Is(err, ErrNoCode) {
			t.Errorf("a code %q: %v", content, err)
		}
	}
	status, page := b.enter(" - ")
	b.want(status, page, "Welcome", "")
}

// TestStrangers shows nothing to who has no code, before and after there is an officer.
func TestStrangers(t *testing.T) {
	r := begin(t)
	stranger, other := r.browser(), r.browser()
	status, page := stranger.get("/portal/first/officer")
	stranger.want(status, page, "Welcome to your server", "")
	status, page = stranger.sendOf(page, "/portal/first/officer", olga...)
	stranger.want(status, page, "Welcome to your server", "")
	status, page = stranger.get("/portal/first/restore")
	stranger.want(status, page, "Welcome to your server", "")
	status, page = other.enter(code) // a second device, which is late
	other.want(status, page, "Who are you?", "")
	late := page
	status, page = other.get("/portal/first/restore")
	other.want(status, page, "Restore a backup", "")
	r.claimed()
	people := func() int {
		all, err := r.deps.Directory.People(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := people()
	fields := slices.Clone(olga)
	fields[1] = "Eve"
	if status, _ := other.sendOf(late, "/portal/first/officer", fields...); status == http.StatusInternalServerError || people() != before {
		t.Errorf("a late device: status %d, %d people", status, people())
	}
	if _, err := r.service.Claim(context.Background(), code); !errors.Is(err, ErrClaimed) {
		t.Errorf("the code after the claim: %v", err)
	}
	status, page = stranger.get("/portal/first/organisation")
	if strings.Contains(page, "What is your organisation?") {
		t.Errorf("a stranger sees the steps: %d", status)
	}
}

// TestAgain sends each step's form twice, from a page that is old: no harm, and where it matters she is told.
func TestAgain(t *testing.T) {
	r := begin(t)
	b := r.claimed()
	_, old := b.get("/portal/first/organisation")
	fields := []string{"name", "Green Thumbs", "kind", "choir", "zone", "Europe/London"}
	status, page := b.sendOf(old, "/portal/first/organisation", fields...)
	b.want(status, page, "What shall the server do?", "")
	fields[1] = "Another Name"
	status, page = b.sendOf(old, "/portal/first/organisation", fields...)
	b.want(status, page, "What is your organisation?", "Somebody went on meanwhile")
	status, page = b.sendOf(page, "/portal/first/organisation", fields...) // what she sees now is how it is
	b.want(status, page, "What shall the server do?", "")
	_, old = b.get("/portal/first/modules")
	for range 2 {
		status, page = b.sendOf(old, "/portal/first/modules", "module", "page")
	}
	b.want(status, page, "What shall the server do?", "Somebody went on meanwhile")
	for range 2 {
		status, page = b.send("/portal/first/invite", "/portal/first/invite", "what", "link")
		b.want(status, page, "Invite members", "")
	}
	st, err := r.service.State()
	if err != nil || st.Current() != StepRecovery || !st.IsDone(StepModules) {
		t.Errorf("state %+v, %v", st, err)
	}
}

// TestSecond gives a second officer an office, and no office twice.
func TestSecond(t *testing.T) {
	r := begin(t)
	b := r.claimed()
	ctx := context.Background()
	for _, name := range []string{"anna", "berta"} {
		if err := r.deps.Directory.AddPerson(ctx, directory.Person{Name: name, Given: name}); err != nil {
			t.Fatal(err)
		}
	}
	give := func(person, office string) (int, string) {
		return b.send("/portal/first/second", "/portal/first/second", "what", "appoint", "person", person, "office", office)
	}
	status, page := give("anna", "chair")
	b.want(status, page, "A second officer", "Also an officer: anna (Chair)")
	status, page = give("berta", "chair")
	b.want(status, page, "A second officer", "Somebody holds this office already")
	status, page = give("nobody", "secretary")
	if status != http.StatusNotFound {
		t.Errorf("an office for nobody: %d\n%s", status, page)
	}
	p, err := r.deps.Directory.Person(ctx, "anna")
	if err != nil || !slices.Equal(p.Groups, []string{"members", "officers"}) {
		t.Errorf("she is in %q, %v", p.Groups, err)
	}
}

// TestCut fails between any two writes of making the officer, and goes on with the same form. The twin has another name.
func TestCut(t *testing.T) {
	r := begin(t)
	ctx := context.Background()
	o := Officer{Name: "olga", Given: "Olga", Family: "Oberst", Office: "nonsense"}
	if err := r.service.MakeOfficer(ctx, o, "en", "tomatoes and beans"); err == nil {
		t.Fatal("an office that is not there was given")
	}
	r.restart()
	if !r.service.Unclaimed() {
		t.Fatal("half an officer has claimed the box")
	}
	o.Office, o.Family = "chair", "Ohm"
	if err := r.service.MakeOfficer(ctx, o, "en", "tomatoes and beans"); err != nil {
		t.Fatal(err)
	}
	if p, err := r.deps.Directory.Person(ctx, "olga"); err != nil || p.Family != "Ohm" || r.service.Unclaimed() {
		t.Errorf("the officer is %+v, %v", p, err)
	}
	if err := r.service.MakeOfficer(ctx, o, "en", "tomatoes and beans"); !errors.Is(err, ErrClaimed) {
		t.Errorf("a second first officer: %v", err)
	}
}

// TestNameTaken leaves alone who has the name already, and removes what an earlier try left.
func TestNameTaken(t *testing.T) {
	r := begin(t)
	ctx := context.Background()
	if err := r.deps.Directory.AddPerson(ctx, directory.Person{Name: "anna", Given: "Anna"}); err != nil {
		t.Fatal(err)
	}
	half := Officer{Name: "half", Given: "Half", Office: "nonsense"}
	if err := r.service.MakeOfficer(ctx, half, "en", "tomatoes and beans"); err == nil {
		t.Fatal("an office that is not there was given")
	}
	o := Officer{Name: "anna", Given: "Eve", Office: "chair"}
	if err := r.service.MakeOfficer(ctx, o, "en", "tomatoes and beans"); !errors.Is(err, ErrNameTaken) {
		t.Fatalf("somebody else's name: %v", err)
	}
	o.Name = "eve"
	if err := r.service.MakeOfficer(ctx, o, "en", "tomatoes and beans"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.deps.Directory.Person(ctx, "half"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("half an account is still there: %v", err)
	}
}

// TestRestored is a portal that was restored on another box, and one that has lost what it kept.
func TestRestored(t *testing.T) {
	r := begin(t)
	r.claimed()
	r.box.Claims.Claimed = false
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r.service.Run(ctx); !r.box.Claim().Claimed {
		t.Error("the box was not told that it has an officer")
	}
	if _, err := r.service.change(func(_ *store.Tx, st *State) error { *st = State{}; return nil }); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if r.service.Unclaimed() {
		t.Error("a box that is claimed lets somebody claim it")
	}
}

// TestKinds reads the kinds: each has all that the pages show, in all languages.
func TestKinds(t *testing.T) {
	kinds, err := Kinds()
	if err != nil || len(kinds) < 5 {
		t.Fatalf("%d kinds, %v", len(kinds), err)
	}
	for _, k := range kinds {
		all := []Text{k.Title, k.Help}
		for _, x := range slices.Concat(k.Groups, k.Offices) {
			all = append(all, x.Title)
		}
		for _, s := range k.Settings {
			for _, text := range s {
				all = append(all, text)
			}
		}
		for _, text := range all {
			if text["en"] == "" || text["de"] == "" {
				t.Errorf("kind %q has %q", k.Name, text)
			}
		}
	}
}

func TestNormal(t *testing.T) {
	for _, c := range []string{"abcd-efgh-jk01", " ABCD EFGH\tJK0I", "ABCDEFGHJKOL"} {
		if got := Normal(c); got != "ABCDEFGHJK01" {
			t.Errorf("%q is %q", c, got)
		}
	}
}

func TestNameOf(t *testing.T) {
	for _, c := range [][3]string{{"Olga", "Öberst", "olga.oeberst"}, {"Anna-Lena", "von Żak", "annalena.vonzak"}, {"王", "伟", "officer"},
		{"Éva", "", "eva"}, {"1", "2", "officer"}} {
		if got := nameOf(c[0], c[1]); got != c[2] {
			t.Errorf("%s %s is %q, want %q", c[0], c[1], got, c[2])
		}
	}
}
