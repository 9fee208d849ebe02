package portal_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"allotment/image"
	"allotment/portal/box"
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
		for key, english := range wordsOf(m) {
			for _, tag := range messages.Languages() {
				if messages[tag][key] == "" {
					t.Errorf("%s: language %q has nothing for %s, %q", name, tag, key, english)
				}
			}
			// What the box says has the declaration's words in it, and is known by them.
			if got := messages["en"][key]; strings.Contains(key, ".step.") && got != english {
				t.Errorf("%s: %s is %q in the declaration and %q in the messages", name, key, english, got)
			}
		}
	}
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

// TestModuleWordsTwin finds a word that is missing.
func TestModuleWordsTwin(t *testing.T) {
	words := wordsOf(image.Module{Name: "bees", Title: "Bees", Repairs: []image.Repair{{Name: "feed", Title: "Feed them", Help: "Honey."}}})
	for _, key := range []string{"module.bees.title", "module.bees.about", "task.bees.feed.title", "task.bees.feed.help"} {
		if words[key] == "" {
			t.Errorf("%s is not asked for", key)
		}
	}
}
