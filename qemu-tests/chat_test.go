package qemutests

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"allotment/modules/chat/xmpptest"
	"allotment/qemu-tests/vm"
)

// TestChat has members' programs use the chat from outside the box.
func TestChat(t *testing.T) {
	m := bootModule(t, "chat", vm.Options{Forward: []int{80, 5222}})
	ctx := t.Context()
	passwords := accounts(t, m, 3)
	const domain = "allotment.internal"
	server := xmpptest.Server{Address: m.Address(5222), Domain: domain, Patience: vm.Patience(time.Minute)}
	logIn := func(name string) *xmpptest.Member {
		t.Helper()
		member, err := xmpptest.LogIn(ctx, server, name, passwords[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { member.Close() })
		return member
	}
	if _, err := xmpptest.LogIn(ctx, server, "user01", passwords["user02"]); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("user01 with the password of user02: %v", err)
	}
	anna, bert := logIn("user01"), logIn("user02")
	tell(t, anna, bert, "user02@"+domain, "Is the gate shut? <&")
	if err := anna.Write("chat", "user03@"+domain, "for later"); err != nil { // who is not there
		t.Fatal(err)
	}

	room := "committee@rooms." + domain
	for _, member := range []*xmpptest.Member{anna, bert} {
		if err := member.Join(room, member.JID[:6]); err != nil {
			t.Fatal(err)
		}
	}
	if err := anna.Write("groupchat", room, "We meet on Monday"); err != nil {
		t.Fatal(err)
	}
	if _, err := bert.AwaitMessage("We meet on Monday"); err != nil {
		t.Fatal(err)
	}

	base := "http://" + m.Address(80)
	file := bytes.Repeat([]byte("minutes "), 10000)
	client := &http.Client{Transport: &http.Transport{}}
	where, err := anna.Upload(ctx, client, base, "minutes.txt", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anna.Upload(ctx, client, base, "film.bin", make([]byte, 17<<20)); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("a file larger than the setting allows: %v", err)
	}
	if err := xmpptest.OpenInBrowser(ctx, client, base+"/chat/xmpp-websocket", domain); err != nil {
		t.Error(err)
	}
	mustShow(t, client, base+"/chat/", []byte("converse.min.js"))
	mustShow(t, client, base+"/chat/dist/converse.min.js", nil)

	mustRun(t, m.API(), "journey", "chat")
	mustRun(t, m.API(), "repair", "chat")
	mustRun(t, m.API(), "backup", "chat", "dump", "verify", "restore", "restore-test")

	mustKnow := func() {
		t.Helper()
		mustRemember(t, logIn("user01"), "", "Is the gate shut? <&", "for later")
		mustRemember(t, logIn("user03"), "", "for later")
		mustRemember(t, logIn("user02"), room, "We meet on Monday")
		mustShow(t, client, where, file)
	}
	restart(t, m.API(), "chat", "prosody")
	mustKnow()
	if err := m.Reset(ctx); err != nil { // no time to write anything
		t.Fatal(err)
	}
	mustBeReadyAgain(t, m)
	if _, err := m.Get(ctx, 80, "/chat/"); err != nil { // until the gateway has heard of it
		t.Fatal(err)
	}
	mustKnow()
	report(t, m, "directory", "chat")
}

// tell has one member write to another, who is there.
func tell(t *testing.T, from, to *xmpptest.Member, address, body string) {
	t.Helper()
	if err := from.Write("chat", address, body); err != nil {
		t.Fatal(err)
	}
	if _, err := to.AwaitMessage(body); err != nil {
		t.Fatal(err)
	}
}

// mustRemember wants messages to be in an archive.
func mustRemember(t *testing.T, member *xmpptest.Member, of string, want ...string) {
	t.Helper()
	have, err := member.History(of)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range want {
		if !slices.Contains(have, body) {
			t.Errorf("the archive of %q has %q, not %q", of, have, body)
		}
	}
}

// mustShow wants a page to have the content.
func mustShow(t *testing.T, client *http.Client, url string, want []byte) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(got, want) {
		t.Errorf("%s: %s, %d bytes, error %v", url, resp.Status, len(got), err)
	}
}
