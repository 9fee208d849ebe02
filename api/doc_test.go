package api

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestRoutesAreDocumented wants the table of routes in docs/formats/api.md to be this package's.
func TestRoutesAreDocumented(t *testing.T) {
	var want []string
	for _, r := range Routes() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", strings.NewReplacer("{", "", "}", "").Replace(r.Pattern()), r.Access, r.Does))
	}
	compare(t, "Routes", want)
}

// TestCodesAreDocumented wants the same of the codes of errors.
func TestCodesAreDocumented(t *testing.T) {
	var want []string
	for _, c := range codes {
		want = append(want, fmt.Sprintf("| `%s` | %d | %s |", c.code, c.status, c.when))
	}
	compare(t, "Answers", want)
}

func compare(t *testing.T, heading string, want []string) {
	b, err := os.ReadFile("../docs/formats/api.md")
	if err != nil {
		t.Fatal(err)
	}
	got := rows(string(b), heading)
	for _, r := range want {
		if !slices.Contains(got, r) {
			t.Errorf("docs/formats/api.md lacks\n%s", r)
		}
	}
	for _, r := range got {
		if !slices.Contains(want, r) {
			t.Errorf("docs/formats/api.md has what is not there:\n%s", r)
		}
	}
}

// rows are those of the table below a heading, without its head.
func rows(text, heading string) []string {
	_, text, _ = strings.Cut(text, "\n## "+heading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var all []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| ") {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	return all[min(1, len(all)):]
}

func TestRows(t *testing.T) {
	got := rows("# A\n## B\n| no |\n## C\ntext\n| head |\n|---|\n| row |\n\n## D\n| no |\n", "C")
	if !slices.Equal(got, []string{"| row |"}) {
		t.Errorf("got %q", got)
	}
}
