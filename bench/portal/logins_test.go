package portal

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"allotment/modules/directory/directorytest"
	"allotment/portal/directory"
	"allotment/portal/portaltest"
)

const (
	people     = 200
	logins     = 1000
	clients    = 20 // at once
	mostMemory = 60 // MiB of portal and gateway together
)

func TestMain(m *testing.M) { directorytest.Main(m) }

// TestThousandLogins has 200 people log in five times each, from many clients at once, and look at a page.
func TestThousandLogins(t *testing.T) {
	if os.Getenv("ALLOT_FULL") == "" {
		t.Skip("takes a minute of argon2: set ALLOT_FULL=1, or make bench-portal")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to start programs as somebody else")
	}
	address, password := directorytest.Start(t)
	d := portaltest.Start(t, address, password).Directory
	for i := range people {
		must(t, d.AddPerson(t.Context(), directory.Person{Name: name(i), Given: "Member", Family: fmt.Sprint(i)}))
		must(t, d.SetPassword(t.Context(), name(i), portaltest.Password))
	}
	h := build(t, address, password)
	h.tell("before the first visitor")
	begun := time.Now()
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for i := next.Add(1) - 1; i < logins; i = next.Add(1) - 1 {
				if err := h.visit(int(i) % people); err != nil {
					failed.Add(1)
					t.Errorf("login %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	t.Logf("%d logins by %d clients: %d failed, %.1f s, %.0f ms each", logins, clients, failed.Load(), took.Seconds(),
		took.Seconds()*1000/logins)
	h.tell("after the logins")
}

func name(i int) string { return fmt.Sprintf("member%d", i) }

var token = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// visit logs somebody in by the form, in a browser of her own at an address of her own, and wants her own page.
func (h *house) visit(who int) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+who))}} // gateway and portal bound each address
	transport := &http.Transport{DialContext: from.DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the box's own certificate
	defer transport.CloseIdleConnections()
	c := &http.Client{Jar: jar, Transport: transport, Timeout: 2 * time.Minute}
	form, err := read(c.Get(h.url + "/portal/login"))
	if err != nil {
		return err
	}
	found := token.FindStringSubmatch(form)
	if found == nil {
		return fmt.Errorf("no form: %.500s", form)
	}
	if _, err := read(c.PostForm(h.url+"/portal/login", url.Values{
		"form_token": {found[1]}, "name": {name(who)}, "password": {portaltest.Password}})); err != nil {
		return err
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // to the login
	_, err = read(c.Get(h.url + "/portal/me"))
	return err
}

// read wants an answer of status 200.
func read(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.300s", resp.Request.URL.Path, resp.Status, b)
	}
	return string(b), err
}
