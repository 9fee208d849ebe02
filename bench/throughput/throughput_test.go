package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/builder"
)

// TestNative makes the files of the Debian out of the modules as they are.
func TestNative(t *testing.T) {
	source, err := builder.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProfile(string(source))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n, err := newNative(p, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(n.packages(), " "); !strings.Contains(got, "nginx") || !strings.Contains(got, "prosody") {
		t.Errorf("packages are %s", got)
	}
	for path, want := range map[string]string{
		kept + "/config/nginx.conf":           "listen 8080",
		"etc/php/8.4/extensions.ini":          "extension=mysqli",
		"etc/sysusers.d/peer.conf":            "u mysql\n",
		"etc/systemd/system/nginx.service":    `ExecStart="/usr/sbin/nginx" "-e" "stderr" "-c" "/run/config/nginx.conf" "-g" "daemon off;"`,
		"etc/systemd/system/database.service": `ExecStartPre="/usr/bin/php8.4" "/usr/lib/allotment/make-database.php"`,
		"etc/systemd/system/php.service": `"--execute=SELECT 1"
ExecStartPre="/usr/bin/php8.4" "/usr/lib/allotment/install.php"`,
		"etc/systemd/system/slapd.service":                         `ExecStartPre="/bin/sh" "/usr/lib/allotment/directory.sh" "create"`,
		"etc/systemd/system/prosody.service":                       "User=prosody\n",
		kept + "/config/slapd.conf":                                `rootpw "` + portalPassword + `"`,
		kept + "/config/prosody.cfg.lua":                           `VirtualHost "` + domain + `"`,
		kept + "/secrets/tls.crt":                                  "BEGIN CERTIFICATE",
		"etc/hosts":                                                "directory.internal",
		"etc/tmpfiles.d/peer.conf":                                 "d /var/lib/ldap 0700 openldap openldap",
		"etc/systemd/system/multi-user.target.wants/nginx.service": "User=www-data",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, "files", path)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %q, error %v:\n%s", path, want, err, b)
		}
	}
	for unit, once := range map[string]string{"php": "make-database.php", "nginx": "install.php", "database": "install.php"} {
		b, err := os.ReadFile(filepath.Join(dir, "files", units, unit+".service"))
		if err != nil || strings.Contains(string(b), once) {
			t.Errorf("service %s does %s again, or is not there: %v", unit, once, err)
		}
	}
	if err := open(p.Modules); err == nil { // a second time there is no password to replace
		t.Error("a directory whose template has changed is measured")
	}
}

func TestQuoted(t *testing.T) {
	if got, want := quoted([]string{"/bin/a", `b "c"`, "100%", "$d"}), `"/bin/a" "b \"c\"" "100%%" "$$d"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRead(t *testing.T) {
	read := func(stream string) (message, error) {
		var m message
		c := &xmppClient{in: xml.NewDecoder(strings.NewReader(stream))}
		return m, c.read("message", &m)
	}
	const head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	var m message
	c := &xmppClient{in: xml.NewDecoder(strings.NewReader(head + "<presence/><message type='chat'><body>Hi &amp; bye</body></message>"))}
	if err := c.read("message", &m); err != nil || m.Body != "Hi & bye" || m.Type != "chat" {
		t.Errorf("got %+v, error %v", m, err)
	}
	for _, bad := range []string{
		head + "<failure><not-authorized/></failure>",
		head + "<stream:error><conflict/></stream:error>",
		head + "<message><body>",
		"",
	} {
		if _, err := read(bad); err == nil {
			t.Errorf("%q is a message", bad)
		}
	}
}

func TestRow(t *testing.T) {
	costs := func(ms ...int) (all []cost) {
		for _, m := range ms {
			all = append(all, cost{wall: 2 * time.Duration(m) * time.Second, cpu: time.Duration(m) * time.Second,
				instructions: int64(m) * 3e6, atRest: 1e6, requests: 1000})
		}
		return all
	}
	r := report{results: []result{{load: load{name: "X", unit: "y", number: 7}, ours: costs(4, 100, 5), native: costs(4, 3, 1)}}}
	if got, want := r.String(), "| X | 5 | 3 | **0.60** | 0.12 to 0.60 | 0.60 | 5.000 | 3.000 | 0.60 | 100 | 167 | 0.60 |"; !strings.Contains(got, want) {
		t.Errorf("want %s in\n%s", want, got)
	}
}

func TestQuantile(t *testing.T) {
	for _, x := range []struct {
		q, want float64
		values  []float64
	}{{0.5, 3, []float64{3}}, {0.5, 2, []float64{3, 1, 2}}, {0.5, 2.5, []float64{4, 3, 1, 2}}, {0.25, 1.75, []float64{4, 3, 1, 2}}, {1, 4, []float64{4, 1}}} {
		if got := quantile(x.values, x.q); got != x.want {
			t.Errorf("quantile %v of %v is %v, want %v", x.q, x.values, got, x.want)
		}
	}
}
