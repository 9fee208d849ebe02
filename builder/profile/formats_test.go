package profile

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"allotment/image"
)

var (
	tableHead = regexp.MustCompile(`^\| (key|field)(?: of (.*))? \| meaning \|$`)
	codeSpan  = regexp.MustCompile("`([^`]+)`")
)

// documented lists the keys in the first columns of a document's tables. A table is of the keys that its head names, or of
// the file itself.
func documented(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out, of []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		m := tableHead.FindStringSubmatch(line)
		switch {
		case m != nil && m[2] == "":
			of = []string{""}
		case m != nil:
			of = spans(m[2])
		case !strings.HasPrefix(line, "|"):
			of = nil
		default:
			for _, table := range of {
				for _, key := range spans(strings.Split(line, "|")[1]) {
					out = append(out, join(table, key))
				}
			}
		}
	}
	return out
}

func spans(text string) []string {
	var out []string
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestFormatsAreDocumented wants every key of module.toml and of profiles in the tables of their documents, and no other.
func TestFormatsAreDocumented(t *testing.T) {
	for path, v := range map[string]any{
		"../../docs/formats/module.md": ModuleSpec{}, "../../docs/formats/profile.md": Profile{},
	} {
		said := documented(t, path)
		keys := leaves(reflect.TypeOf(v), "")
		for _, key := range keys {
			if !slices.Contains(said, key) && !strings.HasPrefix(key, "tree.") { // tree.md has those
				t.Errorf("%s has no row for %s", path, key)
			}
		}
		for i, key := range said {
			known := slices.ContainsFunc(keys, func(k string) bool { return k == key || strings.HasPrefix(k, key+".") })
			if !known {
				t.Errorf("%s has a row for %s, which is no key", path, key)
			}
			if slices.Contains(said[:i], key) {
				t.Errorf("%s has two rows for %s", path, key)
			}
		}
	}
}

// TestManifestIsDocumented wants every field of the manifest in its document, and those of a module by the names that
// module.md has, as manifest.md says.
func TestManifestIsDocumented(t *testing.T) {
	said := documented(t, "../../docs/formats/manifest.md")
	var fields []string
	for f := range fieldsOf(image.Manifest{}) {
		fields = append(fields, jsonName(f))
	}
	slices.Sort(said)
	slices.Sort(fields)
	if !slices.Equal(said, fields) {
		t.Errorf("documented are %q, fields are %q", said, fields)
	}
	checkNames(t, reflect.TypeOf(image.Module{}))
}

// checkNames wants JSON to have the names of TOML: lists of tables in the plural.
func checkNames(t *testing.T, of reflect.Type) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct {
		return
	}
	for f := range fields(of) {
		toml, json := tagName(f), jsonName(f)
		if toml == "-" || toml == json || toml+"s" == json || toml == "restore-test" && json == "restoreTest" {
			checkNames(t, f.Type)
			continue
		}
		t.Errorf("%s.%s is %q in TOML and %q in JSON", of, f.Name, toml, json)
	}
}

func fieldsOf(v any) func(func(reflect.StructField) bool) { return fields(reflect.TypeOf(v)) }

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
