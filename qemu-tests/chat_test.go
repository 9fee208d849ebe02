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

// chatDomain is the organisation's before it has one.
const chatDomain = "allotment.internal"

// useChat has members' programs use the chat from outside the box.
func useChat(t *testing.T, c *club) (again func(*testing.T)) {
	ctx, server := t.Context(), c.chatServer()
	if _, err := xmpptest.LogIn(ctx, server, "user01", c.passwords["user02"]); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("user01 with the password of user02: %v", err)
	}
	anna, bert := c.openChat(t, "user01"), c.openChat(t, "user02")
	tell(t, anna, bert, "user02@"+chatDomain, "Is the gate shut? <&")
	if err := anna.Write("chat", "user03@"+chatDomain, "for later"); err != nil { // who is not there
		t.Fatal(err)
	}

	room := "committee@rooms." + chatDomain
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

	base := "http://" + c.Address(80)
	file := bytes.Repeat([]byte("minutes "), 10000)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a reset ends no connection
	where, err := anna.Upload(ctx, client, base, "minutes.txt", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anna.Upload(ctx, client, base, "film.bin", make([]byte, 17<<20)); !errors.Is(err, xmpptest.ErrRefused) {
		t.Errorf("a file larger than the setting allows: %v", err)
	}
	if err := xmpptest.OpenInBrowser(ctx, client, base+"/chat/xmpp-websocket", chatDomain); err != nil {
		t.Error(err)
	}
	mustShow(t, client, base+"/chat/", []byte("converse.min.js"))
	mustShow(t, client, base+"/chat/dist/converse.min.js", nil)

	mustRun(t, c.API(), "journey", "chat")
	mustRun(t, c.API(), "repair", "chat")
	mustRun(t, c.API(), "backup", "chat", "dump", "verify", "restore", "restore-test")

	again = func(t *testing.T) {
		t.Helper()
		mustRemember(t, c.openChat(t, "user01"), "", "Is the gate shut? <&", "for later")
		mustRemember(t, c.openChat(t, "user03"), "", "for later")
		mustRemember(t, c.openChat(t, "user02"), room, "We meet on Monday")
		mustShow(t, client, where, file)
	}
	restart(t, c.API(), "chat", "prosody")
	again(t)
	return again
}

func (c *club) chatServer() xmpptest.Server {
	return xmpptest.Server{Address: c.Address(5222), Domain: chatDomain, Patience: vm.Patience(time.Minute)}
}

// openChat logs a member's program in until the test ends.
func (c *club) openChat(t *testing.T, name string) *xmpptest.Member {
	t.Helper()
	member, err := xmpptest.LogIn(t.Context(), c.chatServer(), name, c.passwords[name])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { member.Close() })
	return member
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
