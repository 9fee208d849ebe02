package onboard_test

import (
	"encoding/base64"
	"net/url"
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/portaltest"
)

// TestImportPage takes in a list by the officers' page, with the box for first passwords ticked and without.
func TestImportPage(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	b := p.LogIn(t, portaltest.Officer)
	form := url.Values{"form_token": {b.Token()}, "format": {"csv"}, "do": {"yes"}}
	for list, welcome := range map[string]bool{"login,e-mail\neve,eve@mail.example\nida,\n": true, "login,e-mail\nada,ada@mail.example\n": false} {
		form.Set("content", base64.StdEncoding.EncodeToString([]byte(list)))
		form.Del("welcome")
		if welcome {
			form.Set("welcome", "yes")
		}
		page := b.Post("/portal/people/import", form)
		if page.Status != 200 || page.Says("no mail address, so their links were not sent: ida.") != welcome {
			t.Errorf("welcome %t: %d %s", welcome, page.Status, page.Words())
		}
	}
	items, err := p.Deps().Mail.Pending()
	if err != nil || len(items) != 1 || items[0].Message.To != "eve@mail.example" {
		t.Errorf("mails %v, error %v", items, err)
	}
}
