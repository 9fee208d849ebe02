// Package browser drives a headless Chromium as somebody with an iPad would use it: by the words on the page, never by the
// page's code. It also judges pages: by axe-core's rules, by the keyboard, and at 200 % zoom.
package browser

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"

	"allotment/builder/apt"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// The screen of an iPad, upright, in CSS pixels.
const (
	Width  = 768
	Height = 1024
)

// wait bounds each step that a page may take its time for; a box under emulation is slow.
const wait = 90 * time.Second

const userAgent = "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"

// Options say how the browser sees the world.
type Options struct {
	Hosts    map[string]string // where host names are, such as club.example to 127.0.0.1:8443; all ports of a name lead there
	Language string            // that pages are asked for, as in BCP 47; empty: en
}

// Browser is a running Chromium.
type Browser struct {
	t        testing.TB
	language string
	axe      string
	main     context.Context
}

// Start starts a browser out of the project's own tool root; it ends with the test.
func Start(t testing.TB, o Options) *Browser {
	t.Helper()
	root := open(t)
	axe, err := os.ReadFile(filepath.Join(root.Dir(), "usr/share/npm/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	language := o.Language
	if language == "" {
		language = "en"
	}
	ws := start(t, root.Command(t.Context(), "/usr/lib/chromium/chromium-headless-shell", arguments(t, o, language)...))
	allocator, cancel := remote.NewAllocator(context.Background(), ws, remote.NoModifyURL)
	t.Cleanup(cancel)
	main, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(main); err != nil {
		t.Fatalf("cannot speak with the browser: %v", err)
	}
	return &Browser{t, language, string(axe), main}
}

func open(t testing.TB) *tools.Root {
	t.Helper()
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tools.Lock()
	if err != nil {
		t.Fatal(err)
	}
	root, err := tools.OpenBrowser(t.Context(), dir, apt.New(dir, profile.Debian{}, l.Epoch), progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// arguments keep the browser from speaking with anybody but the pages of the test. Its own sandbox wants namespaces within
// the tool root's; what it is shown here is ours.
func arguments(t testing.TB, o Options, language string) []string {
	var rules []string
	for name, to := range o.Hosts {
		rules = append(rules, "MAP "+name+" "+to)
	}
	slices.Sort(rules)
	return []string{
		"--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
		"--font-render-hinting=none", "--ignore-certificate-errors", "--remote-debugging-port=0",
		"--user-data-dir=" + t.TempDir(), "--lang=" + language, "--host-resolver-rules=" + strings.Join(rules, ","), "about:blank",
	}
}

// start starts the browser and returns the address by which it is driven, which it prints.
func start(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start the browser: %v", err)
	}
	address := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(address)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, ws, found := strings.Cut(lines.Text(), "DevTools listening on "); found {
				address <- ws
			}
		}
	})
	t.Cleanup(func() {
		cmd.Cancel()
		reading.Wait()
		cmd.Wait()
	})
	select {
	case ws, ok := <-address:
		if ok {
			return ws
		}
	case <-time.After(wait):
	}
	t.Fatal("the browser does not start")
	return ""
}

// Open opens an empty tab of somebody new: it shares no cookie with other tabs.
func (b *Browser) Open(t testing.TB) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.main, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	tab := &Tab{t: t, ctx: ctx, axe: b.axe, complaints: &complaints{}}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(Width, Height, chromedp.EmulateTouch)); err != nil { // opens it
		t.Fatalf("cannot open a tab: %v", err)
	}
	command(tab, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: userAgent, AcceptLanguage: b.language})
	tab.listen()
	return tab
}

// errorf makes an error of a step with the page that it happened on.
func (tab *Tab) errorf(format string, args ...any) {
	tab.t.Helper()
	tab.t.Fatalf("%s\nat %s:\n%s\n%s", fmt.Sprintf(format, args...), tab.URL(), tab.Text(), strings.Join(tab.Complaints(), "\n"))
}
