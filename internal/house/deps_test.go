package house

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// linkRule says what a program must not contain, whoever brings it in.
type linkRule struct {
	programs []string // folders
	forbid   []string // patterns as those of go list: an import path, with those below if it ends in /...
	why      string
}

// devicePrograms are the programs in the root file system but the updater, into which go-tuf brings a registry's names, no more.
var devicePrograms = []string{"cmd/allot-init", "cmd/allot-supervisor", "cmd/allot-gateway", "cmd/allot-portal", "cmd/allot-resolver"}

var linkRules = []linkRule{
	{programs: devicePrograms,
		forbid: []string{"github.com/containers/image/...", "go.podman.io/image/...", "github.com/google/go-containerregistry/..."},
		why:    "the device takes layers by digest and speaks to no registry"},
	{programs: devicePrograms[:1],
		forbid: []string{"net", "net/http", "crypto/tls", "os/exec", "github.com/pelletier/go-toml/...", "github.com/spf13/cobra"},
		why:    "PID 1 stays tiny: a panic in it is a reset, so it reads no network and no configuration language"},
}

// goPackage is a package as go list describes it.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// linked returns every package in the program at a folder of the module in dir.
func linked(dir, program string) (map[string]goPackage, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", "./"+program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list %q: %w\n%s", program, err, stderr.Bytes())
	}
	packages := map[string]goPackage{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("cannot read what go list prints: %w", err)
		}
		packages[p.ImportPath] = p
	}
	return packages, nil
}

// checkLinked returns the chain of imports by which a program contains what a rule forbids.
func checkLinked(dir string, rules []linkRule) ([]string, error) {
	var findings []string
	for _, rule := range rules {
		for _, program := range rule.programs {
			packages, err := linked(dir, program)
			if err != nil {
				return nil, err
			}
			if chain := chainTo(packages, modulePath+"/"+program, rule.forbid); chain != nil {
				findings = append(findings, strings.Join(chain, " imports ")+": "+rule.why)
			}
		}
	}
	return findings, nil
}

// chainTo is the shortest chain of imports from a package to one that fits a pattern, or nil.
func chainTo(packages map[string]goPackage, from string, patterns []string) []string {
	fits := func(pkg string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			root, all := strings.CutSuffix(pattern, "/...")
			return pkg == root || all && below(pkg, root)
		})
	}
	cameFrom := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if fits(queue[0]) {
			var chain []string
			for p := queue[0]; p != ""; p = cameFrom[p] {
				chain = append(chain, p)
			}
			slices.Reverse(chain)
			return chain
		}
		for _, p := range packages[queue[0]].Imports {
			if _, seen := cameFrom[p]; !seen {
				cameFrom[p] = queue[0]
				queue = append(queue, p)
			}
		}
	}
	return nil
}

func TestLinked(t *testing.T) {
	findings, err := checkLinked("../..", linkRules)
	if err != nil {
		t.Fatal(err)
	}
	wantNone(t, findings)
}

func TestLinkedTwin(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                 "module allotment\n\ngo 1.26.0\n",
		"cmd/allot-init/main.go": "package main\n\nimport \"allotment/init/boot\"\n\nfunc main() { boot.Run() }\n",
		"init/boot/boot.go":      "package boot\n\nimport \"net/http\"\n\nfunc Run() { http.Get(\"\") }\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	findings, err := checkLinked(dir, linkRules[1:])
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, findings, "allotment/cmd/allot-init imports allotment/init/boot imports net/http", "PID 1 stays tiny")
}

var (
	required   = regexp.MustCompile(`(?m)^\s*(?:require\s+)?([a-z0-9.-]+\.[a-z]+/\S+) v\S+`)
	dependency = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
)

// checkDependencies compares the modules that our files import with the table in docs/dependencies.md.
func checkDependencies(tr *tree) []string {
	var modules []string
	for _, m := range required.FindAllStringSubmatch(tr.read("go.mod"), -1) {
		modules = append(modules, m[1])
	}
	direct := map[string]string{} // module to a file that imports it
	for _, s := range tr.sources {
		for _, spec := range s.ast.Imports {
			if m := moduleOf(importPath(spec), modules); m != "" {
				direct[m] = s.name
			}
		}
	}
	var findings []string
	listed := map[string]bool{}
	for _, m := range dependency.FindAllStringSubmatch(tr.read("docs/dependencies.md"), -1) {
		listed[m[1]] = true
		if direct[m[1]] == "" {
			findings = append(findings, fmt.Sprintf("docs/dependencies.md: nothing imports %s", m[1]))
		}
	}
	for m, file := range direct {
		if !listed[m] {
			findings = append(findings, fmt.Sprintf("%s: imports %s, which has no line in docs/dependencies.md", file, m))
		}
	}
	return findings
}

// moduleOf is the longest of modules that a package belongs to.
func moduleOf(pkg string, modules []string) string {
	best := ""
	for _, m := range modules {
		if below(pkg, m) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

func TestDependencies(t *testing.T) { wantNone(t, checkDependencies(ours(t))) }

func TestDependenciesTwin(t *testing.T) {
	files := map[string]string{
		"go.mod":               "module allotment\n\nrequire (\n\texample.org/a/v2 v2.0.0\n\texample.org/b v0.1.0 // indirect\n)\n",
		"docs/dependencies.md": "| module |\n|---|\n| `example.org/a/v2` | MIT |\n",
		"x/x.go":               "package x\n\nimport _ \"example.org/a/v2/sub\"\n",
	}
	wantNone(t, checkDependencies(planted(t, files)))
	files["x/y.go"] = "package x\n\nimport _ \"example.org/b\"\n"
	wantOne(t, checkDependencies(planted(t, files)), "x/y.go: imports example.org/b, which has no line")
	delete(files, "x/y.go")
	files["docs/dependencies.md"] += "| `example.org/b` | MIT |\n"
	wantOne(t, checkDependencies(planted(t, files)), "nothing imports example.org/b")
}
