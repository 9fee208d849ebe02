package portaltest

import (
	"net/http"
	"strings"
	"testing"

	"allotment/modules/directory/directorytest"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

func TestStart(t *testing.T) {
	address, password := directorytest.Start(t)
	p := Start(t, address, password)
	r, err := http.Get(p.URL + "/-/health")
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r, err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err = client.Get(p.URL + "/portal/")
	if err != nil || r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(r.Header.Get("Location"), "/portal/login") {
		t.Error(r, err)
	}
	r, err = client.Get(p.URL + "/portal/nothing")
	if err != nil || r.StatusCode != http.StatusNotFound {
		t.Error(r, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMessages(t *testing.T) {
	address, password := directorytest.Start(t)
	p := Start(t, address, password)
	if err := p.Site().Messages().Complete(); err != nil {
		t.Error(err)
	}
}
