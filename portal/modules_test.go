package portal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"allotment/image"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/portaltest"
	"allotment/portal/web"
)

// TestModuleWords looks that every word that a module's declaration has for people is there in every language.
func TestModuleWords(t *testing.T) {
	messages, err := web.ReadMessages((&box.Pages{}).Section().Files)
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob("../modules/*/module.toml")
	if err != nil || len(all) < 5 {
		t.Fatal(all, err)
	}
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m image.Module
		if err := toml.Unmarshal(b, &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, lack := range lacking(messages, m) {
			t.Errorf("%s: %s", name, lack)
		}
	}
	// The twin: a word that one language has not, and a step that is called otherwise than in what the box says.
	delete(messages["de"], "permission.web.edit.title")
	messages["en"]["task.web.read.step.1"] = "Another"
	var site image.Module
	b, err := os.ReadFile("../modules/web/module.toml")
	if err == nil {
		err = toml.Unmarshal(b, &site)
	}
	if got := lacking(messages, site); err != nil || len(got) != 2 {
		t.Errorf("%v, %q", err, got)
	}
}

// lacking tells which of a module's words are not there in every language. The box says steps by the declaration's words, so
// the English ones are the same.
func lacking(messages web.Messages, m image.Module) []string {
	var all []string
	for key, english := range wordsOf(m) {
		for _, tag := range messages.Languages() {
			if messages[tag][key] == "" {
				all = append(all, fmt.Sprintf("language %q has nothing for %s, %q", tag, key, english))
			}
		}
		if got := messages["en"][key]; strings.Contains(key, ".step.") && got != english {
			all = append(all, fmt.Sprintf("%s is %q in the declaration and %q in the messages", key, english, got))
		}
	}
	return all
}

// wordsOf are a module's words by the keys of messages.
func wordsOf(m image.Module) map[string]string {
	words := map[string]string{"module." + m.Name + ".title": m.Title, "module." + m.Name + ".about": m.Title}
	add := func(kind, name, part, text string) {
		if text != "" {
			words[kind+"."+m.Name+"."+name+"."+part] = text
		}
	}
	for _, p := range m.Permissions {
		add("permission", p.Name, "title", p.Title)
	}
	for _, s := range m.Settings {
		add("setting", s.Name, "title", s.Title)
		add("setting", s.Name, "help", s.Help)
		for _, c := range s.Choices {
			add("setting", s.Name, "choice."+c, c)
		}
	}
	for _, j := range m.Journeys {
		add("task", j.Name, "title", j.Title)
		for i, s := range j.Steps {
			add("task", j.Name, "step."+strconv.Itoa(i+1), s.Title)
		}
	}
	for _, r := range m.Repairs {
		add("task", r.Name, "title", r.Title)
		add("task", r.Name, "help", r.Help)
	}
	return words
}

// TestLogWords reads in the officers' log of modules and what is in them by their titles.
func TestLogWords(t *testing.T) {
	p := start(t)
	for _, e := range []audit.Entry{
		{Actor: "olga", Kind: "box.module-on", Subject: "calendar"},
		{Actor: "olga", Kind: "box.setting", Subject: "web", Args: map[string]string{"setting": "tagline"}},
		{Actor: "olga", Kind: "box.setting", Subject: "organisation", Args: map[string]string{"setting": "language"}},
		{Actor: "olga", Kind: "box.task", Subject: "chat", Args: map[string]string{"task": "write"}},
		{Actor: "olga", Kind: "permission.granted", Subject: "bees", Args: map[string]string{"module": "web", "permission": "edit"}},
		{Actor: "olga", Kind: "box.module-on", Subject: "a-module-of-theirs"},
	} {
		if err := p.Deps().Audit.Record(e); err != nil {
			t.Fatal(err)
		}
	}
	b := p.LogIn(t, portaltest.Officer)
	b.Send("/portal/language", "language", "de")
	page := b.Get("/portal/people/log")
	for _, want := range []string{"hat Kalender eingeschaltet", "hat die Einstellung Untertitel von Website geändert",
		"die Einstellung Sprache von der Organisation geändert", "hat Sich anmelden und eine Nachricht schreiben von Chat",
		"erlaubt: Seiten und Beiträge schreiben und veröffentlichen (Website)", "hat a-module-of-theirs eingeschaltet"} {
		if !page.Says(want) {
			t.Errorf("no %q in %s", want, page.Words())
		}
	}
}
