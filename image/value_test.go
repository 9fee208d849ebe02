package image

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestSettingCheck(t *testing.T) {
	for _, c := range []struct {
		setting Setting
		value   any
		want    any    // what comes out
		fault   string // or what is said
	}{
		{Setting{Type: "boolean"}, true, true, ""},
		{Setting{Type: "boolean"}, "true", nil, "true or false"},
		{Setting{Type: "integer"}, json.Number("7"), 7, ""},
		{Setting{Type: "integer"}, int64(7), 7, ""},
		{Setting{Type: "integer"}, 7.0, 7, ""},
		{Setting{Type: "integer"}, 7.5, nil, "whole number"},
		{Setting{Type: "integer"}, json.Number("1e2"), nil, "whole number"},
		{Setting{Type: "integer"}, "7", nil, "whole number"},
		{Setting{Type: "integer", Min: 3, Max: 9}, 2, nil, "3 or more"},
		{Setting{Type: "integer", Min: 3, Max: 9}, 10, nil, "9 or less"},
		{Setting{Type: "integer"}, int64(1) << 40, nil, "2147483647 or less"},
		{Setting{Type: "integer"}, -1, nil, "0 or more"},
		{Setting{Type: "string"}, "Ünder", "Ünder", ""},
		{Setting{Type: "string"}, "", "", ""},
		{Setting{Type: "string", Min: 1}, "", nil, "not be empty"},
		{Setting{Type: "string", Min: 3}, "ab", nil, "3 characters or more"},
		{Setting{Type: "string", Max: 3}, "äöüß", nil, "3 characters or less"},
		{Setting{Type: "string"}, strings.Repeat("a", 4097), nil, "4096 characters or less"},
		{Setting{Type: "string"}, "a\nb", nil, "single line"},
		{Setting{Type: "string"}, "a\x00b", nil, "control characters"},
		{Setting{Type: "string"}, "a\xffb", nil, "UTF-8"},
		{Setting{Type: "string"}, 5, nil, "a text"},
		{Setting{Type: "text"}, "a\n\tb", "a\n\tb", ""},
		{Setting{Type: "text"}, "a\rb", nil, "control characters"},
		{Setting{Type: "string", Pattern: "[a-c]+"}, "abc", "abc", ""},
		{Setting{Type: "string", Pattern: "a|bc"}, "abc", nil, "the form a|bc"},
		{Setting{Type: "choice", Choices: []string{"a", "b"}}, "b", "b", ""},
		{Setting{Type: "choice", Choices: []string{"a", "b"}}, "c", nil, "one of a, b"},
		{Setting{Type: "email"}, "a@example.org", "a@example.org", ""},
		{Setting{Type: "email"}, "", "", ""},
		{Setting{Type: "email"}, "A <a@example.org>", nil, "e-mail"},
		{Setting{Type: "host"}, "mail.Example.org", "mail.Example.org", ""},
		{Setting{Type: "host"}, "2001:db8::1", "2001:db8::1", ""},
		{Setting{Type: "host"}, "fe80::1%eth0", nil, "host name"},
		{Setting{Type: "host"}, "a_b", nil, "host name"},
		{Setting{Type: "url"}, "https://example.org/x?y", "https://example.org/x?y", ""},
		{Setting{Type: "url"}, "javascript:alert(1)", nil, "https://"},
		{Setting{Type: "url"}, "https://user:pw@example.org", nil, "https://"},
		{Setting{Type: "colour"}, "red", nil, "does not know"},
	} {
		got, err := c.setting.Check(c.value)
		if c.fault == "" && (err != nil || got != c.want) {
			t.Errorf("%+v of %#v: got %#v, %v", c.setting, c.value, got, err)
		}
		if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%+v of %#v: got %#v, %v, want %q", c.setting, c.value, got, err, c.fault)
		}
	}
}

func TestOrganisationCheck(t *testing.T) {
	good := Organisation{Name: "Garden Club", Domain: "allotment.internal", Language: "de-AT", TimeZone: "Etc/GMT+1"}
	if faults := good.Check(); len(faults) > 0 {
		t.Errorf("got %v", faults)
	}
	bad := Organisation{Domain: "192.0.2.1", Language: "German", TimeZone: "../etc", Contact: "nobody"}
	var fields []string
	for f := range bad.Check() {
		fields = append(fields, f)
	}
	slices.Sort(fields)
	if want := "contact,domain,language,name,time-zone"; strings.Join(fields, ",") != want {
		t.Errorf("got faults of %v, want %s", fields, want)
	}
	for _, d := range []string{"localhost", "Example.org", "a..b", "a.b_c", "example.org.", "x.1"} {
		if (Organisation{Name: "n", Domain: d, Language: "en", TimeZone: "Etc/UTC"}).Check()["domain"] == nil {
			t.Errorf("took the domain %q", d)
		}
	}
}
