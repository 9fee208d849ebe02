// Package chat_test talks to the real Prosody of the module, with the real directory.
package chat_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/init/render"
	"allotment/modules/chat/xmpptest"
	"allotment/modules/moduletest"
	"allotment/portal/directory"
)

func TestMain(m *testing.M) { moduletest.Main(m) }

const password = "correct horse battery staple"

// club is a running directory and chat.
type club struct {
	t       *testing.T
	box     *moduletest.Box
	ldap    string // address of the directory
	slapd   *moduletest.Module
	prosody *moduletest.Module
	portal  *directory.Directory
	server  xmpptest.Server
	web     string // URL of Prosody's web server
	stop    func() // ends Prosody
	stopDir func() // ends the directory
}

func newClub(t *testing.T) *club {
	t.Helper()
	c := &club{t: t, box: moduletest.New(t, "directory", "chat"), ldap: moduletest.FreeAddress(t)}
	c.slapd = c.box.Unpack("directory", nil)
	if _, err := c.slapd.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "create"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.slapd.Run("/usr/sbin/slapadd", "-f", "/run/config/slapd.conf", "-b", "ou=probes,ou=people,o=organisation",
		"-l", "/run/config/probes.ldif"); err != nil {
		t.Fatal(err)
	}
	c.startDirectory()
	clients, web := moduletest.FreeAddress(t), moduletest.FreeAddress(t)
	c.server = xmpptest.Server{Address: clients, Domain: moduletest.Organisation.Domain, Patience: time.Minute}
	c.web = "http://" + web
	c.prosody = c.box.Unpack("chat", func(d *render.Data) { d.LDAP.URI = "ldap://" + c.ldap })
	c.exchange("{ 5222 }", "{ "+port(clients)+" }", "{ 5223 }", "{}", "{ 5280 }", "{ "+port(web)+" }", "allotment_look = 30", "allotment_look = 1", "log = {", "run_as_root = true\nlog = {")
	c.start()

	portal := directory.Open(c.ldap, func() (string, error) { return c.box.Secret("directory", "portal"), nil })
	t.Cleanup(func() { portal.Close() })
	c.portal = portal
	if err := portal.DeclarePermission(t.Context(), "chat", "use", "members"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"anna", "bert", "cora"} {
		if err := portal.AddPerson(t.Context(), directory.Person{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := portal.SetPassword(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
		if name == "cora" {
			continue // she may not use it
		}
		if err := portal.AddMember(t.Context(), "members", name); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// exchange replaces texts that each stand once in Prosody's configuration.
func (c *club) exchange(pairs ...string) {
	c.t.Helper()
	const file = "/run/config/prosody.cfg.lua"
	conf := string(c.prosody.Read(file))
	for pair := range slices.Chunk(pairs, 2) {
		if strings.Count(conf, pair[0]) != 1 {
			c.t.Fatalf("the configuration does not have %q just once", pair[0])
		}
		conf = strings.Replace(conf, pair[0], pair[1], 1)
	}
	c.prosody.Write(file, []byte(conf))
}

func (c *club) startDirectory() {
	c.t.Helper()
	c.stopDir = c.slapd.Start(c.ldap, "/usr/sbin/slapd", "-f", "/run/config/slapd.conf", "-h", "ldap://"+c.ldap, "-d", "none")
}

func (c *club) start() {
	c.t.Helper()
	c.stop = c.prosody.Start(c.server.Address, "/usr/bin/lua5.4", "/usr/bin/prosody", "-F", "--config", "/run/config/prosody.cfg.lua")
}

func (c *club) logIn(name string) *xmpptest.Member {
	c.t.Helper()
	m, err := xmpptest.LogIn(c.t.Context(), c.server, name, password)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { m.Close() })
	return m
}

// history runs a part of history.lua.
func (c *club) history(action string) error {
	_, err := c.prosody.Run("/usr/bin/lua5.4", "/usr/lib/allotment/history.lua", action)
	return err
}

func TestMessages(t *testing.T) {
	c := newClub(t)
	for name, password := range map[string]string{"anna": "a guess", "nobody": password, "bert": "", "*": password, "cora": password} {
		if _, err := xmpptest.LogIn(t.Context(), c.server, name, password); !errors.Is(err, xmpptest.ErrRefused) {
			t.Errorf("%q with password %q: %v", name, password, err)
		}
	}
	anna, bert := c.logIn("anna"), c.logIn("bert")
	c.tell(anna, bert, "Is the gate shut? <&")
	room := "committee@rooms." + c.server.Domain
	if err := errors.Join(anna.Join(room, "Anna"), bert.Join(room, "Bert"), anna.Write("groupchat", room, "On Monday")); err != nil {
		t.Fatal(err)
	}
	if _, err := bert.AwaitMessage("On Monday"); err != nil {
		t.Fatal(err)
	}

	everyone := "everyone@rooms." + c.server.Domain
	if err := errors.Join(anna.Join(everyone, "Anna"), bert.Join(everyone, "Bert"), anna.Write("groupchat", everyone, "Welcome")); err != nil {
		t.Fatal(err)
	}
	if _, err := bert.AwaitMessage("Welcome"); err != nil {
		t.Fatal(err)
	}

	c.stop() // by force
	c.start()
	c.mustRemember("anna", "", "Is the gate shut? <&")
	c.mustRemember("bert", everyone, "Welcome")
	c.mustRemember("bert", room, "On Monday")

	c.stopDir() // and back: connections that were idle are of no use
	c.startDirectory()
	c.tell(c.logIn("anna"), c.logIn("bert"), "Still here")
}

// tell has anna write to bert.
func (c *club) tell(anna, bert *xmpptest.Member, body string) {
	c.t.Helper()
	if err := anna.Write("chat", "bert@"+c.server.Domain, body); err != nil {
		c.t.Fatal(err)
	}
	if _, err := bert.AwaitMessage(body); err != nil {
		c.t.Fatal(err)
	}
}

func (c *club) mustRemember(name, of, body string) {
	c.t.Helper()
	have, err := c.logIn(name).History(of)
	if err != nil || !slices.Contains(have, body) {
		c.t.Errorf("the archive of %q has %q, not %q; error %v", of, have, body, err)
	}
}

// TestEndOfMembership: who is deactivated, or may not chat any more, is out although her program stays connected. A directory that
// is away for a moment puts nobody out.
func TestEndOfMembership(t *testing.T) {
	c := newClub(t)
	anna, bert := c.logIn("anna"), c.logIn("bert")
	c.stopDir()
	c.startDirectory()
	c.tell(anna, bert, "before")
	if err := c.portal.Deactivate(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if s, err := anna.AwaitMessage("never"); err == nil {
		t.Errorf("anna goes on: %+v", s)
	}
	if _, err := xmpptest.LogIn(t.Context(), c.server, "anna", password); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("anna comes back: %v", err)
	}
	c.tell(bert, bert, "bert stays")
	if err := c.portal.RemoveMember(t.Context(), "members", "bert"); err != nil {
		t.Fatal(err)
	}
	if s, err := bert.AwaitMessage("never"); err == nil {
		t.Errorf("bert goes on: %+v", s)
	}
}

func TestFiles(t *testing.T) {
	c := newClub(t)
	anna := c.logIn("anna")
	client := &http.Client{Transport: &http.Transport{}}
	content := bytes.Repeat([]byte("minutes "), 5000)
	url, err := anna.Upload(t.Context(), client, c.web, "minutes.txt", content)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, client, url); !bytes.Equal(got, content) {
		t.Errorf("%s has %d bytes, want %d", url, len(got), len(content))
	}
	if _, err := anna.Upload(t.Context(), client, c.web, "film.bin", make([]byte, 16<<20+1)); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("a file larger than the setting allows: %v", err)
	}
	if err := xmpptest.OpenInBrowser(t.Context(), client, c.web+"/chat/xmpp-websocket", c.server.Domain); err != nil {
		t.Error(err)
	}
	if page := get(t, client, c.web+"/chat/"); !bytes.Contains(page, []byte("converse.min.js")) {
		t.Errorf("the page is %q", page)
	}
	get(t, client, c.web+"/chat/dist/converse.min.js")
}

func get(t *testing.T, client *http.Client, url string) []byte {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", url, resp.Status, err)
	}
	return b
}

// TestBackup saves the messages while Prosody runs, and puts them back over others.
func TestBackup(t *testing.T) {
	c := newClub(t)
	c.tell(c.logIn("anna"), c.logIn("bert"), "before")
	if err := errors.Join(c.history("dump"), c.history("verify"), c.history("check")); err != nil {
		t.Fatal(err)
	}
	c.tell(c.logIn("anna"), c.logIn("bert"), "after")
	if err := errors.Join(c.history("restore"), c.history("compare")); err != nil {
		t.Fatal(err)
	}
	have, err := c.logIn("anna").History("")
	if err != nil || !slices.Equal(have, []string{"before"}) {
		t.Errorf("after the restore the archive has %q; error %v", have, err)
	}

	const dump = "/var/lib/dump/prosody.sqlite"
	good := c.prosody.Read(dump)
	bad := slices.Clone(good)
	for i := 4096; i < len(bad); i += 4096 { // the head of every page but the first
		copy(bad[i:], "damaged")
	}
	c.prosody.Write(dump, bad)
	if c.history("verify") == nil {
		t.Error("a damaged dump was taken for good")
	}
	if c.history("restore") == nil {
		t.Error("a damaged dump was restored")
	}
}
