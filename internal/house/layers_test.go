package house

import (
	"fmt"
	"go/token"
	"strings"
	"testing"
)

// layerRule says which packages of ours the packages below From must not reach, directly or through others of ours.
type layerRule struct {
	from   []string // folders
	forbid []string // folders; "" is every folder of ours
	except []string // folders
	tests  []string // folders that tests may import, whatever those reach
	why    string
}

// deviceSide is what runs on the box.
var deviceSide = []string{"init", "updater", "portal", "gateway", "dns",
	"cmd/allot-init", "cmd/allot-supervisor", "cmd/allot-updater", "cmd/allot-portal", "cmd/allot-gateway", "cmd/allot-resolver"}

var layerRules = []layerRule{
	{from: []string{"image"}, forbid: []string{""}, except: []string{"image", "internal/run"}, // mkfs.erofs is a program
		why: "image holds the nouns that builder and device share, so it depends on neither"},
	{from: []string{"api"}, forbid: []string{""}, except: []string{"api", "image"},
		why: "api is the wire between the parts, so it depends on none of them"},
	{from: []string{"builder"}, forbid: deviceSide,
		why: "builder and device meet only in image and api"},
	{from: deviceSide, forbid: []string{"builder", "qemu-tests", "bench", "cmd/allot", "internal/run", "internal/terminal"},
		except: deviceSide,
		tests:  []string{"modules/backups/backupstest", "modules/directory/directorytest", "builder/restictest"}, // real programs, made as the builder makes them
		why:    "builder and device meet only in image and api, and nothing of the host belongs on the device"},
	{from: []string{"internal"}, forbid: []string{""}, except: []string{"internal", "image"},
		why: "internal packages serve every part, so they depend on none"},
	{from: []string{"qemu-tests/vm"}, forbid: append([]string{"image/disk", "image/uki", "image/validate"}, deviceSide...),
		why: "vm runs any disk and must not know how ours are made"},
}

// edge is one import of ours by ours.
type edge struct {
	to   string // folder
	test bool
	pos  token.Position
}

// graph is the imports between the folders of the tree.
func (tr *tree) graph() map[string][]edge {
	g := map[string][]edge{}
	for _, s := range tr.sources {
		from := strings.TrimPrefix(s.pkg, modulePath+"/")
		for _, spec := range s.ast.Imports {
			if to, ok := strings.CutPrefix(importPath(spec), modulePath+"/"); ok {
				g[from] = append(g[from], edge{to, s.test, tr.fset.Position(spec.Pos())})
			}
		}
	}
	return g
}

// checkLayers returns every import by which a package comes to reach what its rule forbids.
func checkLayers(tr *tree, rules []layerRule) []string {
	var findings []string
	g := tr.graph()
	for _, rule := range rules {
		for from := range g {
			if below(from, rule.from...) {
				findings = append(findings, rule.breaches(g, from)...)
			}
		}
	}
	return findings
}

// breaches follows the imports of one folder. Those of tests count for the folder itself, not for those that import it.
func (r layerRule) breaches(g map[string][]edge, from string) []string {
	var findings []string
	seen := map[string]bool{from: true}
	var follow func(folder string, chain []string)
	follow = func(folder string, chain []string) {
		for _, e := range g[folder] {
			if seen[e.to] || e.test && (folder != from || below(e.to, r.tests...)) {
				continue
			}
			seen[e.to] = true
			chain := append(chain[:len(chain):len(chain)], e.to)
			if r.forbids(e.to) {
				findings = append(findings, fmt.Sprintf("%s: %s: %s", e.pos, strings.Join(chain, " imports "), r.why))
				continue
			}
			follow(e.to, chain)
		}
	}
	follow(from, []string{from})
	return findings
}

func (r layerRule) forbids(folder string) bool {
	if below(folder, r.except...) {
		return false
	}
	for _, f := range r.forbid {
		if f == "" || below(folder, f) {
			return true
		}
	}
	return false
}

func TestLayers(t *testing.T) { wantNone(t, checkLayers(ours(t), layerRules)) }

func TestLayersTwin(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"image/erofs imports internal/cache": {
			"image/erofs/a.go": "package erofs\nimport _ \"allotment/internal/cache\"\nimport _ \"allotment/image\"",
		},
		"builder/oci imports internal/help imports init/plan": {
			"builder/oci/a.go":   "package oci\nimport _ \"allotment/internal/help\"\nimport _ \"allotment/image/erofs\"",
			"internal/help/a.go": "package help\nimport _ \"allotment/init/plan\"",
			"internal/help/b.go": "package help",
		},
		"gateway imports builder/profile": {
			"gateway/a_test.go": "package gateway\nimport _ \"allotment/builder/profile\"\nimport _ \"allotment/init/plan\"",
		},
		"init/boot imports init/plan imports internal/run": {
			"init/boot/a.go": "package boot\nimport _ \"allotment/init/plan\"",
			"init/plan/a.go": "package plan\nimport _ \"allotment/image\"\n",
			"init/plan/b.go": "package plan\nimport _ \"allotment/internal/run\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			rules := layerRules
			from := strings.SplitN(name, " ", 2)[0]
			var found []string
			for _, f := range checkLayers(planted(t, files), rules) {
				if strings.Contains(f, ": "+from+" ") { // a rule binds those in between as well
					found = append(found, f)
				}
			}
			wantOne(t, found, ".go:", name)
		})
	}
	files := map[string]string{
		"init/boot/a.go":      "package boot\nimport _ \"allotment/init/plan\"",
		"init/plan/a_test.go": "package plan\nimport _ \"allotment/internal/help\"",
		"internal/help/a.go":  "package help\nimport _ \"allotment/image\"",
	}
	wantNone(t, checkLayers(planted(t, files), layerRules))
	const helper = "modules/directory/directorytest"
	files = map[string]string{
		"portal/a.go":      "package portal\nimport _ \"allotment/" + helper + "\"",
		"portal/a_test.go": "package portal\nimport _ \"allotment/" + helper + "\"",
		helper + "/a.go":   "package directorytest\nimport _ \"allotment/builder\"",
	}
	wantOne(t, checkLayers(planted(t, files), layerRules), helper+"/a.go:", "portal imports "+helper+" imports builder")
	delete(files, "portal/a.go")
	wantNone(t, checkLayers(planted(t, files), layerRules))
}
