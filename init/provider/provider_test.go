package provider

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const code = "3F7K-9QXM-02TA"

// sys makes a sysfs of the files.
func sys(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// table is an SMBIOS table with a system, and the texts as OEM strings.
func table(texts ...string) string {
	t := "\x01\x06\x00\x01\x01\x02QEMU\x00" + Key + "=of the wrong type\x00\x00"
	t += "\x0b\x05\x00\x0b" + string(rune(len(texts)))
	for _, s := range texts {
		t += s + "\x00"
	}
	return t + "\x00\x7f\x04\x00\x7f\x00\x00"
}

func TestFirmware(t *testing.T) {
	const dmi = "firmware/dmi/tables/DMI"
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{nil, ""},
		{map[string]string{firmwareFile: code + "\n\x00"}, code},
		{map[string]string{firmwareFile: "", dmi: table(Key + "=" + code)}, code},
		{map[string]string{dmi: table("other", Key+"="+code)}, code},
		{map[string]string{dmi: table("x" + Key + "=" + code)}, ""},
		{map[string]string{dmi: table("other")}, ""},
	} {
		if got := (Machine{Sys: sys(t, c.files)}).Firmware(); got != c.want {
			t.Errorf("%q: %q, want %q", c.files, got, c.want)
		}
	}
}

func FuzzOEMStrings(f *testing.F) {
	f.Add([]byte(table("a", "b")))
	f.Add([]byte{11, 0, 0, 0})
	f.Add([]byte{11, 255, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range oemStrings(b) {
			if slices.Contains([]byte(s), 0) {
				t.Errorf("%q has a zero", s)
			}
		}
	})
}

// provider answers as providers do.
func provider(t *testing.T, data string) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hetzner/v1/userdata", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(data)) })
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
		}
		w.Write([]byte("secret"))
	})
	mux.HandleFunc("GET /latest/user-data", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-aws-ec2-metadata-token") != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		w.Write([]byte(data))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestNetwork(t *testing.T) {
	const good = "#cloud-config\nhostname: club\nallotment_claim: \"" + code + "\"\n"
	for _, c := range []struct {
		vendor, data, want string
		fails              bool
	}{
		{vendor: "Hetzner\n", data: good, want: code},
		{vendor: "Amazon EC2\n", data: good, want: code},
		{vendor: "Hetzner\n", data: "hostname: club\nmy_allotment_claim: x\nallotment_claims: y\n"},
		{vendor: "DigitalOcean\n", data: good}, // has no user data
		{vendor: "QEMU\n", data: good},         // nobody is asked, though somebody would answer
		{vendor: "Not Hetzner\n", data: good},  // likewise
		{data: good},                           // no firmware that says so
		{vendor: "Google\n", data: good},       // 404
	} {
		m := Machine{Sys: sys(t, nil), Metadata: provider(t, c.data).URL, Client: http.DefaultClient}
		if c.vendor != "" {
			m.Sys = sys(t, map[string]string{"class/dmi/id/sys_vendor": c.vendor})
		}
		got, err := m.Network(t.Context())
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%q %q: %q, %v; want %q", c.vendor, c.data, got, err, c.want)
		}
	}
	gone := provider(t, good)
	gone.Close()
	m := Machine{Sys: sys(t, map[string]string{"class/dmi/id/sys_vendor": "Hetzner"}), Metadata: gone.URL, Client: http.DefaultClient}
	if got, err := m.Network(t.Context()); err == nil || got != "" {
		t.Errorf("%q of a service that does not answer", got)
	}
}
