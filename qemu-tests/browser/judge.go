package browser

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/chromedp/chromedp"
)

// Violation is a rule of WCAG 2.2 AA, or a best practice of axe-core, that a page breaks.
type Violation struct {
	ID     string   `json:"id"`
	Help   string   `json:"help"`
	Places []string `json:"places"` // selectors, with what is wrong there
}

// String is the violation as one line.
func (v Violation) String() string {
	return fmt.Sprintf("%s: %s: %s", v.ID, v.Help, strings.Join(v.Places, "; "))
}

// Violations has axe-core judge the page as it is.
func (tab *Tab) Violations() []Violation {
	tab.t.Helper()
	get(tab, chromedp.Evaluate[bool](tab.axe+"; true"))
	return get(tab, chromedp.Evaluate[[]Violation](`axe.run(document, {
			runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
		}).then(r => r.violations.map(v => ({
			id: v.id, help: v.help, places: v.nodes.map(n => n.target.join(' ') + ' (' + n.failureSummary + ')'),
		})))`, chromedp.EvalAwaitPromise))
}

// Faults are all violations of the page, and what the browser complained of, one line each.
func (tab *Tab) Faults() []string {
	tab.t.Helper()
	var all []string
	for _, v := range tab.Violations() {
		all = append(all, v.String())
	}
	for _, c := range tab.Complaints() {
		all = append(all, "the browser says: "+c)
	}
	return all
}

// Kind asks for the address with what the tab is logged in with, and returns the media type of the answer.
func (tab *Tab) Kind(url string) string {
	tab.t.Helper()
	address, err := json.Marshal(url)
	if err != nil {
		tab.t.Fatal(err)
	}
	return get(tab, chromedp.Evaluate[string]("fetch("+string(address)+").then(r => { r.body?.cancel(); return r.headers.get('content-type') ?? '' })",
		chromedp.EvalAwaitPromise))
}

// Overflow names what is wider than the screen.
func (tab *Tab) Overflow() []string {
	tab.t.Helper()
	return get(tab, chromedp.Evaluate[[]string](`(() => {
		const width = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= width) return [];
		return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1 &&
			![...e.children].some(c => c.getBoundingClientRect().right > width + 1))
			.map(e => e.tagName.toLowerCase() + '.' + e.className + ' ' + (e.innerText || '').slice(0, 40));
	})()`))
}
