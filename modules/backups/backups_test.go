// Package backups_test asks the real rest-server of the module by HTTP. What restic does with it is tested in init/backup.
package backups_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"allotment/image"
	"allotment/modules/backups/backupstest"
	"allotment/modules/moduletest"
)

func TestMain(m *testing.M) { backupstest.Main(m) }

// ask sends a request as somebody, and returns status and body.
func ask(t *testing.T, s *backupstest.Server, user, password string, step image.Request) (int, string) {
	t.Helper()
	method := step.Method
	if method == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Address+step.Path, strings.NewReader(step.Body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(user, password)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// TestJourney takes the module's own journey twice, as each update does, with each setting.
func TestJourney(t *testing.T) {
	journey := moduletest.New(t, "backups").Declared("backups").Journeys[0]
	for _, keep := range []bool{false, true} {
		s := backupstest.Start(t, backupstest.Settings{Room: 1, Keep: keep})
		for range 2 {
			for _, step := range journey.Steps {
				status, body := ask(t, s, step.HTTP.User, s.Journey, *step.HTTP)
				if status != http.StatusOK || !strings.Contains(body, step.HTTP.Contains) {
					t.Errorf("keep %v: %s: %d %q", keep, step.Title, status, body)
				}
			}
		}
	}
}

// TestWho asks as friends for their own and for another's, and as others.
func TestWho(t *testing.T) {
	s := backupstest.Start(t, backupstest.Settings{Friends: "ashwell\noakham-2 17\n", Room: 1})
	form := regexp.MustCompile(`^[A-Za-z0-9./]{26}$`)
	if !form.MatchString(s.Passwords["ashwell"]) || !form.MatchString(s.Passwords["oakham-2"]) {
		t.Fatalf("%v", s.Passwords)
	}
	before := s.Passwords["ashwell"]
	make := func(of string) image.Request {
		return image.Request{Method: http.MethodPost, Path: "/" + of + "/?create=true"}
	}
	for _, x := range []struct {
		user, password, of string
		want               int
	}{
		{"ashwell", before, "ashwell", http.StatusOK},
		{"oakham-2", s.Passwords["oakham-2"], "oakham-2", http.StatusOK},
		{"ashwell", before, "oakham-2", http.StatusUnauthorized},
		{"ashwell", before, "_journey", http.StatusUnauthorized},
		{"ashwell", before, "ashwell/../oakham-2", http.StatusUnauthorized},
		{"ashwell", before + "x", "ashwell", http.StatusUnauthorized},
		{"oakham-2", before, "oakham-2", http.StatusUnauthorized},
		{"", "", "ashwell", http.StatusUnauthorized},
	} {
		if status, body := ask(t, s, x.user, x.password, make(x.of)); status != x.want {
			t.Errorf("%s:%s asks for %s: %d %q", x.user, x.password, x.of, status, body)
		}
	}
	// A number makes another password; who is off the list is out.
	s.Restart(t, backupstest.Settings{Friends: "ashwell 2\n", Room: 1})
	if s.Passwords["ashwell"] == before {
		t.Error("the number makes no other password")
	}
	if status, _ := ask(t, s, "ashwell", before, make("ashwell")); status != http.StatusUnauthorized {
		t.Errorf("the former password: %d", status)
	}
	if status, _ := ask(t, s, "oakham-2", s.Passwords["oakham-2"], make("oakham-2")); status != http.StatusUnauthorized {
		t.Errorf("one who is not on the list: %d", status)
	}
	s.Restart(t, backupstest.Settings{Friends: "ashwell", Room: 1})
	if s.Passwords["ashwell"] != before {
		t.Error("the password changed by itself")
	}
}
