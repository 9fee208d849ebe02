package mail_test

import (
	"testing"

	"allotment/portal/mail"
	"allotment/portal/web"
)

func TestMessagesComplete(t *testing.T) {
	words, err := web.ReadMessages(mail.Messages)
	if err != nil {
		t.Fatal(err)
	}
	if err := words.Complete(); err != nil {
		t.Error(err)
	}
	for _, language := range words.Languages() {
		if _, err := mail.NewTexts(words).Write("anna@example.org", language, "test", nil); err != nil {
			t.Error(err)
		}
	}
}
