package qemutests

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"allotment/qemu-tests/vm"
)

// useWeb uses the web site from outside the box, as visitors and as the administrator.
func useWeb(t *testing.T, c *club) (again func(*testing.T)) {
	ctx, base := t.Context(), "http://"+c.Address(80)
	visitor := newReader(t, base)
	visitor.mustGet("/", http.StatusOK, "</html>")
	visitor.mustGet("/wp-login.php", http.StatusOK, "/portal/assets/") // the portal's login, or its wizard
	for _, path := range []string{"/xmlrpc.php", "/wp-config.php", "/wp-admin/install.php", "/wp-content/mu-plugins/allotment.php"} {
		visitor.mustGet(path, http.StatusNotFound, "")
	}
	liar := newReader(t, base)
	liar.headers = map[string]string{"X-Remote-User": "anna", "X-Remote-Groups": "officers"}
	liar.mustGet("/wp-admin/", http.StatusOK, "/portal/assets/")

	admin := newReader(t, base)
	admin.actAs(c.VM, "anna")
	admin.mustGet("/wp-admin/", http.StatusOK, "dashboard-widgets")
	nonce := admin.mustGet("/wp-admin/admin-ajax.php?action=rest-nonce", http.StatusOK, "")

	picture := drawPicture(t)
	if answer, status := visitor.post("/?rest_route=/wp/v2/media", "image/png", "", picture); status != http.StatusUnauthorized {
		t.Errorf("a visitor uploads a picture: %d %s", status, answer)
	}
	answer, status := admin.post("/?rest_route=/wp/v2/media", "image/png", nonce, picture)
	if status != http.StatusCreated {
		t.Fatalf("the administrator uploads a picture: %d %s", status, answer)
	}
	var media struct {
		SourceURL    string `json:"source_url"`
		MediaDetails struct {
			Sizes map[string]struct {
				SourceURL string `json:"source_url"`
			} `json:"sizes"`
		} `json:"media_details"`
	}
	if err := json.Unmarshal([]byte(answer), &media); err != nil {
		t.Fatal(err)
	}
	small := media.MediaDetails.Sizes["thumbnail"].SourceURL
	if small == "" {
		t.Errorf("no small picture was made: %s", answer)
	}
	if answer, status := admin.post("/?rest_route=/wp/v2/media", "application/x-php", nonce, []byte("<?php echo 1;")); status == http.StatusCreated {
		t.Errorf("a program was taken for a picture: %s", answer)
	}
	post := `{"title": "The summer fair", "content": "All are welcome.", "status": "publish"}`
	if answer, status := admin.post("/?rest_route=/wp/v2/posts", "application/json", nonce, []byte(post)); status != http.StatusCreated {
		t.Fatalf("the administrator writes: %d %s", status, answer)
	}
	if err := c.API().SetSettings(ctx, "web", map[string]any{"tagline": "Since 1923"}); err != nil {
		t.Fatal(err)
	}

	mustRun(t, c.API(), "journey", "web")
	mustRun(t, c.API(), "backup", "web", "dump", "verify", "restore", "restore-test")
	mustRun(t, c.API(), "repair", "web")

	again = func(t *testing.T) {
		visitor := newReader(t, base)
		visitor.mustGet("/", http.StatusOK, "The summer fair")
		visitor.mustGet("/?rest_route=/", http.StatusOK, "Since 1923")
		visitor.mustGet(strings.TrimPrefix(media.SourceURL, base), http.StatusOK, string(picture))
		visitor.mustGet(strings.TrimPrefix(small, base), http.StatusOK, "PNG")
	}
	again(t)
	for _, service := range []string{"database", "php", "nginx"} {
		restart(t, c.API(), "web", service)
	}
	again(t)
	return again
}

// drawPicture makes a PNG large enough that smaller ones are made of it.
func drawPicture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for x := range 640 {
		for y := range 480 {
			img.Set(x, y, color.RGBA{uint8(x), uint8(y), uint8(x * y), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reader is somebody who looks at the site.
type reader struct {
	t    *testing.T
	base string
	http http.Client

	headers map[string]string // of every request
}

func newReader(t *testing.T, base string) *reader {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, base: base, http: http.Client{Jar: jar, Timeout: vm.Patience(2 * time.Minute),
		Transport: &http.Transport{DisableKeepAlives: true}}} // a reset ends no connection
}

// do makes a request and returns the answer.
func (b *reader) do(method, path string, headers map[string]string, body []byte) (string, int) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, all := range []map[string]string{b.headers, headers} {
		for name, value := range all {
			r.Header.Set(name, value)
		}
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: status %d, %v after %d bytes", method, path, resp.StatusCode, err, len(text))
	}
	return string(text), resp.StatusCode
}

// mustGet wants a status and some text in the page, and returns all of it.
func (b *reader) mustGet(path string, status int, want string) string {
	b.t.Helper()
	page, got := b.do(http.MethodGet, path, nil, nil)
	if got != status || !strings.Contains(page, want) {
		b.t.Errorf("%s: status %d, want %d; %d bytes without %.40q", path, got, status, len(page), want)
	}
	return page
}

// post sends a body to the REST interface, as somebody who has a nonce or not.
func (b *reader) post(path, kind, nonce string, body []byte) (string, int) {
	b.t.Helper()
	headers := map[string]string{"Content-Type": kind, "Content-Disposition": `attachment; filename="fair.` + suffix(kind) + `"`}
	if nonce != "" {
		headers["X-WP-Nonce"] = nonce
	}
	return b.do(http.MethodPost, path, headers, body)
}

func suffix(kind string) string { return kind[strings.LastIndexAny(kind, "/-")+1:] }

// actAs makes the browser an officer of that name, as the gateway would: it speaks with the module from the host's address.
func (b *reader) actAs(m *vm.VM, officer string) {
	b.headers = map[string]string{"X-Remote-User": officer, "X-Remote-Name": officer, "X-Remote-Groups": "members,officers"}
	b.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return m.API().DialModule(ctx, "web", 8080)
	}}
}
