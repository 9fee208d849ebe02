package portal_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"allotment/portal/portaltest"
)

// checkPage looks at what every page must have for those who do not see it, and for the policy of the pages.
func checkPage(page *portaltest.Page) []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	ids, labels, count := map[string]bool{}, map[string]bool{}, map[string]int{}
	level := 0
	for n := range page.Root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				say("<%s> has attribute %s, which the policy forbids", n.Data, a.Key)
			}
		}
		if id := portaltest.Attr(n, "id"); id != "" {
			if ids[id] {
				say("id %q is there twice", id)
			}
			ids[id] = true
		}
		if n.Data == "label" {
			labels[portaltest.Attr(n, "for")] = true
		}
		if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
			if now := int(n.Data[1] - '0'); now > level+1 {
				say("heading %q of level %d after level %d", words(n), now, level)
			}
			level = int(n.Data[1] - '0')
		}
	}
	for n := range page.All("input", "select", "textarea", "img", "button", "a", "th", "html", "title") {
		found = append(found, checkElement(n, labels)...)
	}
	for n := range page.Root.Descendants() {
		for id := range strings.FieldsSeq(portaltest.Attr(n, "aria-describedby")) {
			if !ids[id] {
				say("nothing has id %q, which describes something", id)
			}
		}
	}
	for _, name := range []string{"h1", "main", "title"} {
		if count[name]-count["svg"]*boolInt(name == "title") < 1 || name != "title" && count[name] != 1 {
			say("%d times <%s>", count[name], name)
		}
	}
	return found
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func checkElement(n *html.Node, labels map[string]bool) []string {
	attr := func(name string) string { return portaltest.Attr(n, name) }
	named := attr("aria-label") != "" || labels[attr("id")] && attr("id") != ""
	switch n.Data {
	case "input", "select", "textarea":
		if attr("type") != "hidden" && !named {
			return []string{fmt.Sprintf("<%s name=%q> has no label", n.Data, attr("name"))}
		}
	case "img":
		if attr("alt") == "" {
			return []string{fmt.Sprintf("<img src=%.40q> has no alt", attr("src"))}
		}
	case "button", "a", "th", "title":
		if words(n) == "" && !named {
			return []string{fmt.Sprintf("<%s> has no words", n.Data)}
		}
	case "html":
		if attr("lang") == "" {
			return []string{"no language"}
		}
	}
	return nil
}

func words(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

var keyForm = regexp.MustCompile(`^[a-z]+(\.[a-z]+)+$`)

// untranslated are the words of a page that are keys of messages.
func untranslated(page *portaltest.Page, known map[string]bool) []string {
	var found []string
	for w := range strings.FieldsSeq(page.Words()) {
		if w = strings.Trim(w, ".,:;()"); keyForm.MatchString(w) && known[strings.SplitN(w, ".", 2)[0]] {
			found = append(found, w)
		}
	}
	return found
}

// TestLook looks at every page in every language, as a stranger, a member and an officer see it.
func TestLook(t *testing.T) {
	p := start(t)
	known := map[string]bool{}
	for key := range p.Site().Messages()["en"] {
		known[strings.SplitN(key, ".", 2)[0]] = true
	}
	for _, tag := range p.Site().Messages().Languages() {
		for name, b := range map[string]*portaltest.Browser{"a stranger": p.Stranger(t), "anna": p.LogIn(t, portaltest.Member), "olga": p.LogIn(t, portaltest.Officer)} {
			b.Language = tag
			for _, route := range p.Site().Routes() {
				if route.Method != http.MethodGet || route.Wire {
					continue
				}
				page := b.Get(at(route, ""))
				if page.Root == nil || page.Status == http.StatusSeeOther {
					continue
				}
				if page.Status >= 500 {
					t.Errorf("%s in %s for %s: %d %s", route.Pattern(), tag, name, page.Status, page.Words())
				}
				for _, mistake := range append(checkPage(page), untranslated(page, known)...) {
					t.Errorf("%s in %s for %s: %s", route.Pattern(), tag, name, mistake)
				}
				if got := portaltest.Attr(page.Root.FirstChild.NextSibling, "lang"); got != tag {
					t.Errorf("%s in %s for %s: in language %q", route.Pattern(), tag, name, got)
				}
			}
		}
	}
}

// TestLookTwin looks at a page with every mistake.
func TestLookTwin(t *testing.T) {
	root, err := html.Parse(strings.NewReader(`<!doctype html><html><title></title><h1>a</h1><h1>b</h1><h3>c</h3><input name="x"><img src="y">
		<button></button><p id="i" style="x" onclick="y"></p><p id="i" aria-describedby="j">people.title</p>`))
	if err != nil {
		t.Fatal(err)
	}
	page := &portaltest.Page{Root: root}
	found := strings.Join(checkPage(page), "\n")
	for _, want := range []string{"no language", "2 times <h1>", "0 times <main>", `heading "c" of level 3`, `name="x"> has no label`, "has no alt",
		"<button> has no words", "attribute style", "attribute onclick", `id "i" is there twice`, `nothing has id "j"`, "<title> has no words"} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is not among\n%s", want, found)
		}
	}
	if got := untranslated(page, map[string]bool{"people": true}); len(got) != 1 {
		t.Errorf("untranslated: %v", got)
	}
}
