package qemutests

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/init/secret"
	"allotment/qemu-tests/vm"
)

// TestPortal claims a box that has nothing but what a portal needs, over HTTPS, with the code that the machine's provider has
// chosen, and takes its power away: what was entered stays.
func TestPortal(t *testing.T) {
	const code = "0CAF-E0CA-FE00"
	c := &club{VM: bootImage(t, clubImage(t, image.AMD64, []string{"directory", "web", "calendar"}), vm.Options{
		Forward: []int{80, 443}, Limit: vm.Patience(25 * time.Minute),
		Args: []string{"-fw_cfg", "name=opt/org.allotment/claim,string=" + strings.ToLower(code)},
	})}
	defer showLogs(t, c.VM)
	if got := shownCode(t, c.VM); got != code {
		t.Errorf("the console shows the code %s, not the provider's", got)
	}
	again := usePortal(t, c)
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeReadyAgain(t, c.VM)
	again(t)
	if n := len(c.Lines(regexp.MustCompile(`claim code: ` + code))); n != 2 {
		t.Errorf("the console shows the code %d times in two starts", n)
	}
	report(t, c.VM, "directory", "calendar", "web")
}

// shownCode is the claim code that the console shows.
func shownCode(t *testing.T, m *vm.VM) string {
	t.Helper()
	shown := regexp.MustCompile(`claim code: (\S+)`)
	e, _, err := m.Wait(t.Context(), 0, func(e vm.Event) bool { return e.Kind == vm.Line && shown.MatchString(e.Text) })
	if err != nil {
		t.Fatalf("no claim code is shown: %v", err)
	}
	return shown.FindStringSubmatch(e.Text)[1]
}

// usePortal tries a wrong claim code, and then the right one, which opens the wizard's first step.
func usePortal(t *testing.T, c *club) (again func(*testing.T)) {
	code := shownCode(t, c.VM)
	first := func(t *testing.T) *visitor {
		v := newVisitor(t, "https://"+c.Address(443))
		if page := v.get("/portal/"); !strings.Contains(page, `name="code"`) {
			t.Fatalf("the portal of a box that is nobody's does not ask for the code: %s", page)
		}
		return v
	}
	stranger := first(t)
	if page := stranger.enter(secret.NewClaim()); !strings.Contains(page, `name="code"`) {
		t.Errorf("a wrong code leads to %s", page)
	}
	if claim, err := c.API().Claim(t.Context()); err != nil || claim.Claimed || claim.Wrong != 1 {
		t.Errorf("after a wrong code: %+v, %v", claim, err)
	}
	if page := stranger.get("/portal/first/officer"); strings.Contains(page, `name="given"`) {
		t.Error("without the code somebody gets to the first step")
	}
	owner := first(t)
	if page := owner.enter(strings.ToLower(code)); strings.Contains(page, `name="code"`) || !strings.Contains(page, `action="/portal/first/officer"`) {
		t.Fatalf("the code leads to %s", page)
	}
	return func(t *testing.T) {
		owner.t = t
		if page := owner.get("/portal/"); !strings.Contains(page, `action="/portal/first/officer"`) {
			t.Errorf("after a reset the wizard does not go on: %s", page)
		}
		first(t)
	}
}

// visitor is somebody with a browser that shows no certificate warnings.
type visitor struct {
	t    *testing.T
	base string
	http http.Client
}

func newVisitor(t *testing.T, base string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	return &visitor{t: t, base: base, http: http.Client{Jar: jar, Transport: transport, Timeout: vm.Patience(time.Minute)}}
}

// get follows redirections to a page.
func (v *visitor) get(path string) string {
	v.t.Helper()
	return v.do(http.MethodGet, path, nil)
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// enter enters a claim code and returns the page that follows.
func (v *visitor) enter(code string) string {
	v.t.Helper()
	token := formToken.FindStringSubmatch(v.get("/portal/first/"))
	if token == nil {
		v.t.Fatal("the form has no token")
	}
	return v.do(http.MethodPost, "/portal/first/claim", url.Values{"form_token": {token[1]}, "code": {code}})
}

func (v *visitor) do(method, path string, form url.Values) string {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), vm.Patience(2*time.Minute))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, v.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.http.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return string(b)
}
