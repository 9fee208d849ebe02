// Package pages judges every page of the portal in a browser, as people with an iPad see it: axe-core's rules by day and by
// night, the keyboard, 200 % zoom, German and English. It needs no machine: the portal runs here, on a directory of its own.
package pages

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"allotment/api"
	"allotment/builder/tools"
	"allotment/modules/directory/directorytest"
	"allotment/portal/portaltest"
	"allotment/qemu-tests/browser"
)

var screens = flag.String("screens", "", "folder to keep a picture of every page in")

func TestMain(m *testing.M) {
	flag.Parse()
	tools.EnterIfAsked()
	directorytest.Main(m)
}

// examples are objects that the portal of the tests has, for the names in paths of routes.
var examples = map[string]string{
	"person": portaltest.Member,
	"group":  "bees",
	"office": "treasurer",
	"module": "page",
	"number": "1",
	"device": "apple",
}

// made are names in paths of what first has to be made: TestFirstDay of package qemutests looks at those pages.
var made = []string{"id", "token", "collective"}

var parameter = regexp.MustCompile(`\{([a-z]+)(\.\.\.)?\}`)

// address is where an example of the page can be seen, or "".
func address(t *testing.T, path string) string {
	t.Helper()
	for _, p := range parameter.FindAllStringSubmatch(path, -1) {
		if slices.Contains(made, p[1]) {
			return ""
		}
	}
	return strings.TrimSuffix(parameter.ReplaceAllStringFunc(path, func(p string) string {
		name := parameter.FindStringSubmatch(p)[1]
		value, ok := examples[name]
		if !ok && name != "$" {
			t.Errorf("cannot look at %s: give examples one for %q", path, name)
		}
		return value
	}), "{$}")
}

// TestPages looks at every page that the portal's table of routes has, so that none is forgotten.
func TestPages(t *testing.T) {
	directory, password := directorytest.Start(t)
	p := portaltest.Start(t, directory, password)
	for _, language := range []string{"en", "de"} {
		b := browser.Start(t, browser.Options{Language: language})
		member, officer := b.Open(t), b.Open(t)
		logIn(t, member, p, language, portaltest.Owner)
		logIn(t, officer, p, language, portaltest.Officer)
		for _, route := range p.Site().Routes() {
			if route.Method != http.MethodGet || route.Wire {
				continue
			}
			tab := officer
			if route.Access < api.Officer {
				tab = member
			}
			t.Run(language+strings.ReplaceAll(route.Path, "/", "_"), func(t *testing.T) {
				if at := address(t, route.Path); at != "" {
					judge(t, tab.For(t), p.URL+at, picture(language, route.Path))
				}
			})
		}
	}
}

// words are what the login page calls things.
var words = map[string]struct{ name, password, enter string }{
	"en": {"Name", "Password", "Log in"},
	"de": {"Name", "Passwort", "Anmelden"},
}

// unfinished is what a page shows where a message or a value is missing.
var unfinished = regexp.MustCompile(`ZgotmplZ|<no value>|%!|\b(audit|box|firstrun|members|people|web)(\.[a-z]+)+\b`)

func logIn(t *testing.T, tab *browser.Tab, p *portaltest.Portal, language, name string) {
	t.Helper()
	w := words[language]
	tab.Visit(p.URL + "/portal/login")
	tab.Fill(w.name, name)
	tab.Fill(w.password, portaltest.Password)
	tab.Press(w.enter)
}

// picture is the file for a page's picture.
func picture(language, path string) string {
	name := strings.Trim(strings.NewReplacer("/portal", "", "/", "-", "{", "", "}", "", "$", "").Replace(path), "-")
	if name == "" {
		name = "home"
	}
	return filepath.Join(*screens, language, name+".png")
}

// judge looks at a page in every way.
func judge(t *testing.T, tab *browser.Tab, url, file string) {
	if kind := tab.Kind(url); !strings.HasPrefix(kind, "text/html") {
		return // a file, for programs
	}
	tab.Visit(url)
	text := tab.Text()
	if bad := unfinished.FindString(text); bad != "" {
		t.Errorf("%s reads %q:\n%s", url, bad, text)
	}
	tab.Dark(false)
	if *screens != "" {
		tab.Shot(file)
	}
	problems(t, "by day", tab)
	tab.Dark(true)
	problems(t, "at night", tab)
	for _, name := range tab.Tabs() {
		if strings.HasSuffix(name, "(no name)") || strings.HasSuffix(name, "(focus cannot be seen)") {
			t.Errorf("the tabulator leads to: %s", name)
		}
	}
	tab.Zoom(2)
	if wide := tab.Overflow(); len(wide) != 0 {
		t.Errorf("wider than the screen at 200 %% zoom: %s", strings.Join(wide, "; "))
	}
	tab.Zoom(1)
	if t.Failed() {
		keep := filepath.Join(os.TempDir(), "allot-"+strings.ReplaceAll(t.Name(), "/", "-")+".png")
		tab.Shot(keep)
		fmt.Println("a picture is in", keep)
	}
}

func problems(t *testing.T, when string, tab *browser.Tab) {
	t.Helper()
	for _, f := range tab.Faults() {
		t.Errorf("%s: %s", when, f)
	}
}
