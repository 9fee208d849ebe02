package chat_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"allotment/modules/moduletest"
	"allotment/qemu-tests/browser"
)

// TestClientInABrowser opens the chat's page as a member who is logged in to the portal: it logs her in without asking, and fetches
// nothing from elsewhere (which the browser of the test would complain of).
func TestClientInABrowser(t *testing.T) {
	c := newClub(t)
	prosody, err := url.Parse(c.web)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/chat/", httputil.NewSingleHostReverseProxy(prosody))
	mux.HandleFunc("/.well-known/allotment/sso/credentials", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"person":"anna","password":%q}`, password)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	tab := browser.Start(t, browser.Options{}).Open(t)
	tab.Visit(s.URL + "/chat/")
	tab.Await("anna")
	tab.Await(moduletest.Organisation.Name) // the room for everybody
	for _, complaint := range tab.Complaints() {
		if !strings.Contains(complaint, "registration-required") { // it asks whether her name is reserved in the room
			t.Error(complaint)
		}
	}
}
