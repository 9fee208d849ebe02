package setup_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"allotment/portal/setup"
	"allotment/portal/web"
)

var update = flag.Bool("update", false, "write the golden files anew")

func club() setup.Services {
	return setup.Services{Organisation: "Garden & Bee Club", Domain: "club.example",
		DAV:  &setup.DAV{Host: "club.example", Port: 443, Path: "/calendar/"},
		Mail: &setup.Mail{IMAP: setup.Server{Host: "mail.club.example", Port: 993, TLS: true}, SMTP: setup.Server{Host: "mail.club.example", Port: 587}},
		Chat: &setup.Chat{Web: "https://club.example/chat/"}}
}

var anna = setup.Member{Name: "anna", Display: "Anna </string> Archer", Mail: "anna@club.example", Password: "app-1234-<&>"}

// golden compares with a file that somebody has read.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

// node is an XML element.
type node struct {
	XMLName xml.Name
	Text    string `xml:",chardata"`
	Nodes   []node `xml:",any"`
}

func parse(t *testing.T, raw []byte) node {
	t.Helper()
	var n node
	d := xml.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&n); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) && err != nil {
		t.Fatal(err)
	}
	return n
}

// plist reads an element of a property list as its DTD has it, or says what is wrong.
func plist(n node) (any, error) {
	switch n.XMLName.Local {
	case "string":
		return n.Text, nil
	case "integer":
		var i int
		_, err := fmt.Sscan(n.Text, &i)
		return i, err
	case "true", "false":
		return n.XMLName.Local == "true", nil
	case "array":
		var all []any
		for _, child := range n.Nodes {
			v, err := plist(child)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	case "dict":
		all := map[string]any{}
		for i := 0; i < len(n.Nodes); i += 2 {
			key := n.Nodes[i]
			if key.XMLName.Local != "key" || i+1 == len(n.Nodes) || all[key.Text] != nil {
				return nil, fmt.Errorf("element %q, %q, instead of a new key with a value", key.XMLName.Local, key.Text)
			}
			v, err := plist(n.Nodes[i+1])
			if err != nil {
				return nil, err
			}
			all[key.Text] = v
		}
		return all, nil
	}
	return nil, fmt.Errorf("element %q", n.XMLName.Local)
}

func TestProfile(t *testing.T) {
	var b bytes.Buffer
	if err := setup.WriteProfile(&b, club(), anna); err != nil {
		t.Fatal(err)
	}
	golden(t, "anna.mobileconfig", b.Bytes())
	root := parse(t, b.Bytes())
	if root.XMLName.Local != "plist" || len(root.Nodes) != 1 {
		t.Fatalf("root %q with %d children", root.XMLName.Local, len(root.Nodes))
	}
	v, err := plist(root.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	top := v.(map[string]any)
	uuids := map[any]bool{top["PayloadUUID"]: true}
	parts := top["PayloadContent"].([]any)
	for _, part := range parts {
		d := part.(map[string]any)
		for _, key := range []string{"PayloadType", "PayloadVersion", "PayloadIdentifier", "PayloadUUID"} {
			if d[key] == nil {
				t.Errorf("%v has no %s", d["PayloadType"], key)
			}
		}
		uuids[d["PayloadUUID"]] = true
	}
	if len(parts) != 3 || len(uuids) != 4 {
		t.Errorf("%d parts, %d UUIDs", len(parts), len(uuids))
	}
	calendar := parts[0].(map[string]any)
	if calendar["CalDAVPrincipalURL"] != "/calendar/anna/" || calendar["CalDAVPassword"] != anna.Password || calendar["CalDAVUseSSL"] != true {
		t.Errorf("%v", calendar)
	}
}

func TestProfileWithoutMail(t *testing.T) {
	s, m := club(), anna
	s.Mail, m.Password = nil, ""
	var b bytes.Buffer
	if err := setup.WriteProfile(&b, s, m); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Contains(text, "mail") || strings.Contains(text, "Password") {
		t.Errorf("%s", text)
	}
	s.DAV = nil
	if err := setup.WriteProfile(io.Discard, s, m); !errors.Is(err, setup.ErrNothing) {
		t.Errorf("error %v", err)
	}
}

func TestAutoconfig(t *testing.T) {
	var b bytes.Buffer
	if err := setup.WriteAutoconfig(&b, club()); err != nil {
		t.Fatal(err)
	}
	golden(t, "config-v1.1.xml", b.Bytes())
	parse(t, b.Bytes())
	s := club()
	s.Mail = nil
	if err := setup.WriteAutoconfig(io.Discard, s); !errors.Is(err, setup.ErrNothing) {
		t.Errorf("error %v", err)
	}
}

const request = `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request>
<EMailAddress>Anna@Club.example</EMailAddress>
<AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>
</Request></Autodiscover>`

func TestAutodiscover(t *testing.T) {
	address, err := setup.ReadAutodiscover(strings.NewReader(request))
	if err != nil || address != "Anna@Club.example" {
		t.Fatalf("%q, error %v", address, err)
	}
	var b bytes.Buffer
	if err := setup.WriteAutodiscover(&b, club(), address); err != nil {
		t.Fatal(err)
	}
	golden(t, "autodiscover.xml", b.Bytes())
	parse(t, b.Bytes())
	for _, other := range []string{"anna@elsewhere.example", "@club.example", "anna"} {
		if err := setup.WriteAutodiscover(io.Discard, club(), other); !errors.Is(err, setup.ErrNothing) {
			t.Errorf("%q: error %v", other, err)
		}
	}
}

// FuzzAutodiscover reads any request and answers it: the answer is XML, whatever was asked.
func FuzzAutodiscover(f *testing.F) {
	f.Add(request)
	f.Add(strings.Replace(request, "2006a", "2003", 1))
	f.Add(strings.Replace(request, "Anna@", "&lt;x&gt;]]>@", 1))
	f.Add("<Autodiscover><Request>")
	f.Add(`<!DOCTYPE a [<!ENTITY b "c">]><Autodiscover>&b;</Autodiscover>`)
	f.Fuzz(func(t *testing.T, text string) {
		address, err := setup.ReadAutodiscover(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, setup.ErrRequest) {
				t.Errorf("error %v", err)
			}
			return
		}
		s := club()
		s.Domain = address[strings.LastIndexByte(address, '@')+1:]
		var b bytes.Buffer
		if err := setup.WriteAutodiscover(&b, s, address); err == nil {
			parse(t, b.Bytes())
		}
	})
}

func TestGuides(t *testing.T) {
	words, err := web.ReadMessages(setup.Messages)
	if err != nil {
		t.Fatal(err)
	}
	if err := words.Complete(); err != nil {
		t.Error(err)
	}
	used := map[string]bool{}
	for _, d := range setup.Devices() {
		guides := setup.Guides(club(), anna, d)
		if len(guides) != 2 {
			t.Errorf("%s: %d guides", d, len(guides))
		}
		for _, g := range guides {
			keys := []string{"setup." + string(g.Device) + "." + g.Thing}
			for _, step := range g.Steps {
				keys = append(keys, step.Key)
				if strings.Contains(step.Copy+step.Open, anna.Password) {
					t.Errorf("%s has the password", step.Key)
				}
			}
			for _, key := range keys {
				if used[key] = true; !words.Has(key) {
					t.Errorf("no message %q", key)
				}
			}
		}
	}
	for key := range words["en"] {
		if !used[key] {
			t.Errorf("message %q is not used", key)
		}
	}
	android := setup.Guides(club(), anna, setup.Android)[0].Steps
	if android[1].Open != "davx5://anna@club.example/calendar/anna/" || android[2].Copy != "https://club.example/calendar/anna/" {
		t.Errorf("%+v", android)
	}
	if got := setup.Guides(setup.Services{}, anna, setup.Mac); len(got) != 0 {
		t.Errorf("without services: %v", got)
	}
}
