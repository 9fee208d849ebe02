package browser

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/builder/tools"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

const good = `<!doctype html><html lang="en"><head><title>Bees</title><meta name="viewport" content="width=device-width">
<style>:focus{outline:3px solid #050} input,button,a{min-height:44px;display:inline-block}</style></head><body><main><h1>Bees</h1>
<form method="post" action="/"><p><label for="n">Your name</label> <input id="n" name="n" autocomplete="name"></p>
<p><input type="checkbox" id="c" name="c" value="yes"> <label for="c">I keep bees</label></p><p><button>Send it</button></p></form></main></body></html>`

const bad = `<!doctype html><html><head><title></title></head><body style="color:#ccc;background:#fff"><p>pale</p><input>
<div style="width:2000px">wide</div><img src="/none" alt=""><script>console.error("oh"); bees()</script><style>*:focus{outline:none}</style><button></button></body></html>`

// TestBrowser uses a page as a person does; the twin is a page that breaks every rule.
func TestBrowser(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch {
		case r.Method == "POST":
			w.Write([]byte(`<!doctype html><html lang="en"><title>Thanks</title><main><h1>Thank you, ` + r.FormValue("n") + r.FormValue("c") + `</h1></main>`))
		case r.URL.Path == "/none":
			http.NotFound(w, r)
		case r.URL.Path == "/bad":
			w.WriteHeader(http.StatusGone)
			w.Write([]byte(bad))
		default:
			w.Write([]byte(good))
		}
	}))
	defer s.Close()
	b := Start(t, Options{Hosts: map[string]string{"bees.example": strings.TrimPrefix(s.URL, "http://")}})
	tab := b.Open(t)
	tab.Visit("http://bees.example/")
	if v := tab.Violations(); len(v) != 0 {
		t.Errorf("the good page: %v", v)
	}
	if got := strings.Join(tab.Tabs(), ", "); got != "input Your name, input I keep bees, button Send it" {
		t.Errorf("the tabulator leads to %s", got)
	}
	tab.Zoom(2)
	if wide := tab.Overflow(); len(wide) != 0 {
		t.Errorf("too wide: %v", wide)
	}
	tab.Zoom(1)
	tab.Fill("Your name", "Ann")
	tab.Choose("I keep bees")
	tab.Press("Send it")
	tab.Await("Thank you, Annyes")
	shot := filepath.Join(t.TempDir(), "shots", "thanks.png")
	tab.Shot(shot)
	if st, err := os.Stat(shot); err != nil || st.Size() < 1000 {
		t.Errorf("the picture: %v, %v", st, err)
	}

	if complaints := tab.Complaints(); len(complaints) != 0 {
		t.Errorf("of good pages the browser says %q", complaints)
	}

	tab.Visit(s.URL + "/bad")
	complaints := strings.Join(tab.Complaints(), "\n")
	for _, want := range []string{`console: "oh"`, "bees is not defined", "/none: Failed to load"} {
		if !strings.Contains(complaints, want) {
			t.Errorf("the browser does not say %q, only %q", want, complaints)
		}
	}
	if strings.Contains(complaints, "410") {
		t.Errorf("the browser says of the page itself %q", complaints)
	}
	var ids []string
	for _, v := range tab.Violations() {
		ids = append(ids, v.ID)
	}
	for _, want := range []string{"button-name", "color-contrast", "document-title", "html-has-lang", "label"} {
		if !strings.Contains(strings.Join(ids, " "), want) {
			t.Errorf("axe does not see %s, only %s", want, ids)
		}
	}
	if len(tab.Overflow()) == 0 {
		t.Error("the wide page is not too wide")
	}
	if got := strings.Join(tab.Tabs(), ", "); !strings.Contains(got, "(no name) (focus cannot be seen)") {
		t.Errorf("the tabulator leads to %s", got)
	}
}
