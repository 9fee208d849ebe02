package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/updater/trust/trusttest"
)

func do(t *testing.T, args ...string) error {
	t.Helper()
	c := command()
	c.SetArgs(args)
	return c.ExecuteContext(t.Context())
}

func TestCommands(t *testing.T) {
	repo := trusttest.New(t, time.Now())
	repo.Add("stable", "stable/a/b/release.json", []byte("release"), nil)
	repo.Publish("stable")
	repo.Rotate("timestamp")
	repo.PublishRoot()
	repo.PublishTimestamp()
	targets := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := repo.Files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/targets/") {
			targets++
		}
		w.Write(b)
	}))
	defer server.Close()
	dir := t.TempDir()
	root, folder := filepath.Join(dir, "1.root.json"), filepath.Join(dir, "metadata")
	if err := os.WriteFile(root, repo.RootFile(1), 0o600); err != nil {
		t.Fatal(err)
	}
	where := []string{"--metadata-dir", folder, "--metadata-url", server.URL + "/metadata"}
	if err := do(t, append(where, "refresh")...); err == nil {
		t.Error("refreshes without a root")
	}
	if err := do(t, "--metadata-dir", folder, "init", root); err != nil {
		t.Fatal(err)
	}
	if err := do(t, append(where, "refresh")...); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"root.json": "metadata/2.root.json", "timestamp.json": "metadata/timestamp.json"} {
		if b, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(b) != string(repo.Files[want]) {
			t.Errorf("%s is not %s: %v", name, want, err)
		}
	}
	download := append(where, "--target-base-url", server.URL+"/targets", "--target-dir", dir, "download", "--target-name")
	for range 2 {
		if err := do(t, append(download, "stable/a/b/release.json")...); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "stable%2Fa%2Fb%2Frelease.json")); err != nil || string(b) != "release" || targets != 1 {
		t.Errorf("downloaded %q in %d requests, %v", b, targets, err)
	}
	if err := do(t, append(download, "stable/none/b/release.json")...); err == nil {
		t.Error("downloads what no role has")
	}
	if err := do(t, append(where, "--time", "2050-01-01T00:00:00Z", "refresh")...); err == nil {
		t.Error("in 2050 nothing has expired")
	}
}
