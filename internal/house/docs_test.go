package house

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
)

// checkLinks returns the relative links in Markdown files that lead nowhere.
func checkLinks(tr *tree) []string {
	var findings []string
	for _, doc := range tr.docs {
		text := tr.read(doc)
		for _, at := range link.FindAllStringSubmatchIndex(fence.ReplaceAllStringFunc(text, blank), -1) {
			target := text[at[2]:at[3]]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if why := tr.deadLink(doc, target); why != "" {
				findings = append(findings, fmt.Sprintf("%s:%d: link to %q: %s", doc, lineAt(text, at[0]), target, why))
			}
		}
	}
	return findings
}

// deadLink says why a relative link leads nowhere, or nothing.
func (tr *tree) deadLink(doc, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	name := doc
	if file != "" {
		name = path.Join(path.Dir(doc), file)
	}
	if _, err := fs.Stat(tr.files, name); err != nil {
		return "no such file"
	}
	if anchor == "" {
		return ""
	}
	for _, h := range heading.FindAllStringSubmatch(tr.read(name), -1) {
		if slug(h[1]) == anchor {
			return ""
		}
	}
	return "no such heading"
}

// slug is the anchor that forges give a heading.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, heading)
}

func (tr *tree) read(name string) string {
	text, err := fs.ReadFile(tr.files, name)
	if err != nil {
		panic(fmt.Sprintf("house: cannot read %q: %v", name, err))
	}
	return string(text)
}

// blank keeps only the line ends of a code block.
func blank(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return ' '
	}, s)
}

func lineAt(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }

// private matches what only one developer's machine has. It is written so as not to match itself.
var private = regexp.MustCompile(`(^|[\s"'=(:` + "`" + `])(/[w]ork/|/tmp/[t]rixie|/[U]sers/|/home/[a-z]+/[a-z]+/)`)

// textFiles are the names of the files that are read for private paths.
var textFiles = regexp.MustCompile(`(\.(go|md|toml|lock|sh|txt|txtar|yaml|html|css|conf)|/Makefile|^Makefile|/run)$`)

// checkPrivate returns the lines that name paths of one developer's machine.
func checkPrivate(tr *tree) []string {
	var findings []string
	err := fs.WalkDir(tr.files, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name == ".git" || name == "out" || name == "keys"):
			return fs.SkipDir
		case e.IsDir() || !textFiles.MatchString(name):
			return nil
		}
		text := tr.read(name)
		for _, at := range private.FindAllStringSubmatchIndex(text, -1) {
			findings = append(findings, fmt.Sprintf("%s:%d: %s is a path of one machine",
				name, lineAt(text, at[4]), text[at[4]:at[5]]))
		}
		return nil
	})
	if err != nil {
		findings = append(findings, err.Error())
	}
	return findings
}

func TestLinks(t *testing.T) { wantNone(t, checkLinks(ours(t))) }

func TestPrivate(t *testing.T) { wantNone(t, checkPrivate(ours(t))) }

func TestLinksTwin(t *testing.T) {
	good := "[a](b.md) [b](b.md#two-words) [c](../README.md) [d](https://example.org/x) [e](#here)\n# Here\n```\n[x](no)\n```\n"
	files := map[string]string{"docs/a.md": good, "docs/b.md": "## Two words\n", "README.md": "see [docs](docs)\n"}
	wantNone(t, checkLinks(planted(t, files)))
	files["docs/a.md"] = "\n[a](gone.md)"
	wantOne(t, checkLinks(planted(t, files)), `docs/a.md:2: link to "gone.md": no such file`)
	files["docs/a.md"] = "[a](b.md#three-words)"
	wantOne(t, checkLinks(planted(t, files)), `docs/a.md:1: link to "b.md#three-words": no such heading`)
}

func TestPrivateTwin(t *testing.T) {
	dir := "/wo" + "rk/main"
	wantOne(t, checkPrivate(planted(t, map[string]string{"hack/a.sh": "set -e\ncd " + dir + "\n"})), "hack/a.sh:2", "/wo"+"rk/")
	wantNone(t, checkPrivate(planted(t, map[string]string{"a.go": "package a // at net" + dir + " of a URL\n"})))
}
