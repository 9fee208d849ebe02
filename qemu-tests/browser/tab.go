package browser

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	_ "embed"
)

// Tab is a page that somebody looks at. Its methods end the test where what they ask for is not there.
type Tab struct {
	t          testing.TB
	ctx        context.Context
	axe        string
	complaints *complaints
}

//go:embed page.js
var script string

func (tab *Tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, wait)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tab.t.Fatalf("the browser cannot go on: %v", err)
	}
}

// get runs an action for its value.
func get[T any](tab *Tab, a chromedp.Action[T]) T {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, wait)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		tab.t.Fatalf("the browser cannot go on: %v", err)
	}
	return v
}

// command runs a command of the Chrome DevTools Protocol.
func command[P, R any](tab *Tab, c cdp.Command[P, R], params P) R {
	tab.t.Helper()
	r, err := chromedp.Call(tab.ctx, c, params)
	if err != nil {
		tab.t.Fatalf("the browser cannot %s: %v", c.Method, err)
	}
	return r
}

// For is the same tab in a part of the test, which its failures then belong to.
func (tab *Tab) For(t testing.TB) *Tab {
	part := *tab
	part.t = t
	return &part
}

// Visit opens the address and waits until its page is there.
func (tab *Tab) Visit(url string) {
	tab.t.Helper()
	tab.do(chromedp.Navigate(url))
}

// URL is where the tab is.
func (tab *Tab) URL() string {
	tab.t.Helper()
	return get(tab, chromedp.Location())
}

// Text is all that can be read on the page.
func (tab *Tab) Text() string {
	tab.t.Helper()
	return get(tab, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
}

// Source is all text of the page, also what is folded away or hidden.
func (tab *Tab) Source() string {
	tab.t.Helper()
	return get(tab, chromedp.Evaluate[string](`document.body ? document.body.textContent : ""`))
}

// Code is what the page shows to be copied letter by letter.
func (tab *Tab) Code() string {
	tab.t.Helper()
	return strings.TrimSpace(get(tab, chromedp.Evaluate[string](`document.querySelector(".code")?.textContent ?? ""`)))
}

// call calls a function of page.js with the arguments until it returns something else than "", and returns that.
func (tab *Tab) call(function string, args ...string) string {
	tab.t.Helper()
	list, err := json.Marshal(args)
	if err != nil {
		tab.t.Fatal(err)
	}
	code := "(() => {" + script + "; return " + function + "(..." + string(list) + ")})()"
	for end := time.Now().Add(wait); ; {
		ctx, cancel := context.WithTimeout(tab.ctx, wait)
		result, err := chromedp.Run(ctx, chromedp.Evaluate[string](code))
		cancel()
		if err == nil && result != "" {
			return result
		}
		if time.Now().After(end) {
			tab.errorf("cannot %s %q on this page (%v)", function, args, err)
		}
		time.Sleep(100 * time.Millisecond) // the page may still be on its way
	}
}

// Await waits until the page shows the text.
func (tab *Tab) Await(text string) {
	tab.t.Helper()
	tab.call("shows", text)
}

// Shows tells whether the page shows the text now.
func (tab *Tab) Shows(text string) bool {
	tab.t.Helper()
	return strings.Contains(tab.Text(), text)
}

// Fill types the value into the field with the label.
func (tab *Tab) Fill(label, value string) {
	tab.t.Helper()
	tab.call("fill", label, value)
}

// Choose takes the option, radio button or check box with the label; of a list, label names the option.
func (tab *Tab) Choose(label string) {
	tab.t.Helper()
	tab.call("choose", label)
}

// Press presses the button, or follows the link, with the name, and waits for the page that comes. A page that changes
// without a new address is waited for with Await.
func (tab *Tab) Press(name string) {
	tab.t.Helper()
	tab.call("press", name)
	tab.do(chromedp.Sleep(150*time.Millisecond), chromedp.WaitReady("body")) // navigation begins after the click returns
}

// Attach gives the file at path to the field with the label.
func (tab *Tab) Attach(label, path string) {
	tab.t.Helper()
	selector := tab.call("mark", label)
	tab.do(chromedp.SetUploadFiles(selector, []string{path}))
}

// Address returns where the link with the name leads.
func (tab *Tab) Address(name string) string {
	tab.t.Helper()
	return tab.call("address", name)
}

// GiveAuthenticator gives the device an authenticator for passkeys that says yes to everything, as a finger does.
func (tab *Tab) GiveAuthenticator() {
	tab.t.Helper()
	command(tab, webauthn.Enable, webauthn.EnableParams{})
	command(tab, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		},
	})
}

// Dark shows pages as at night, or by day; colours change at once.
func (tab *Tab) Dark(dark bool) {
	tab.t.Helper()
	value := "light"
	if dark {
		value = "dark"
	}
	command(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
}

// Scripts lets pages run JavaScript, or not.
func (tab *Tab) Scripts(on bool) {
	tab.t.Helper()
	command(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
}

// Zoom shows pages as at a zoom of the browser, 1 or 2: with half the CSS pixels.
func (tab *Tab) Zoom(factor int64) {
	tab.t.Helper()
	tab.do(chromedp.EmulateViewport(Width/factor, Height/factor, chromedp.EmulateTouch))
}

// Shot writes a picture of the whole page to the file, in PNG.
func (tab *Tab) Shot(file string) {
	tab.t.Helper()
	png := get(tab, chromedp.FullScreenshot(100))
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		tab.t.Fatalf("cannot keep a picture: %v", err)
	}
}

// Tabs presses the tabulator through the whole page and returns the names of what gets the focus, in order.
func (tab *Tab) Tabs() []string {
	tab.t.Helper()
	get(tab, chromedp.Evaluate[bool](`document.activeElement && document.activeElement.blur(), window.scrollTo(0, 0), true`))
	var names []string
	for range 300 {
		tab.do(chromedp.KeyEvent(kb.Tab))
		name := get(tab, chromedp.Evaluate[string]("(() => {"+script+"; return focused()})()"))
		if name == "" {
			break
		}
		names = append(names, name)
	}
	return names
}
