package resolve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/image"
	"allotment/internal/run"
)

// solver has apt-get solve dependencies in a private folder, with an index of our making out of verified ones and nothing
// of the host's configuration.
type solver struct {
	runner run.Runner
	dir    string
	byHash map[image.Digest]*apt.Entry
	byName map[string][]*apt.Entry
}

// wish is what a tree is to have.
type wish struct {
	packages []string       // wanted
	without  []string       // taken as there, although they are not
	present  []lock.Package // there already
}

// configuration makes apt read nothing but our folder; %[1]s is the folder, %[2]s the architecture.
const configuration = `Dir "%[1]s/";
Dir::State "state";
Dir::State::lists "%[1]s/lists";
Dir::State::status "%[1]s/status";
Dir::Cache "cache";
Dir::Etc "none";
Dir::Etc::SourceList "%[1]s/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "/dev/null";
Dir::Log "none";
APT::Architecture "%[2]s";
APT::Architectures { "%[2]s"; };
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::AllowUnauthenticated "true";
Acquire::Languages "none";
Debug::NoLocking "true";
`

// Where the index lies for apt: it is that of the only source.
const (
	source    = "deb [trusted=yes] http://index/ verified main\n"
	indexFile = "lists/index_dists_verified_main_binary-%s_Packages"
)

// newSolver writes what apt reads. close removes it.
func newSolver(index *apt.Index, runner run.Runner, arch image.Arch) (*solver, error) {
	dir, err := os.MkdirTemp("", "allot-lock-")
	if err != nil {
		return nil, err
	}
	s := &solver{
		runner: runner, dir: dir,
		byHash: map[image.Digest]*apt.Entry{}, byName: map[string][]*apt.Entry{},
	}
	entries := index.Entries[arch]
	for i := range entries {
		e := &entries[i]
		if _, ok := s.byHash[e.SHA256]; !ok { // the same in two suites: the first one it is
			s.byHash[e.SHA256] = e
			s.byName[e.Name] = append(s.byName[e.Name], e)
		}
	}
	if err := s.prepare(entries, arch); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *solver) close() { os.RemoveAll(s.dir) }

// prepare fills the solver's folder.
func (s *solver) prepare(entries []apt.Entry, arch image.Arch) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "state"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(configuration, s.dir, arch)
	err := errors.Join(
		os.WriteFile(filepath.Join(s.dir, "apt.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(s.dir, "sources.list"), []byte(source), 0o644),
	)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(s.dir, fmt.Sprintf(indexFile, arch)))
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for _, e := range entries {
		writeStanza(w, e, "Filename", e.SHA256.Hex(), "Size", fmt.Sprint(e.Size), "SHA256", e.SHA256.Hex())
	}
	return errors.Join(w.Flush(), f.Close())
}

// writeStanza writes a package with its relations and more fields. Errors are left to the flush of w.
func writeStanza(w io.Writer, e apt.Entry, more ...string) {
	fmt.Fprintf(w, "Package: %s\nVersion: %s\nArchitecture: %s\n", e.Name, e.Version, e.Arch)
	for _, f := range e.Relations {
		fmt.Fprintf(w, "%s: %s\n", f.Name, strings.ReplaceAll(f.Value, "\n", "\n "))
	}
	for i := 0; i < len(more); i += 2 {
		fmt.Fprintf(w, "%s: %s\n", more[i], more[i+1])
	}
	io.WriteString(w, "\n")
}

// solve returns what has to be added for a wish, sorted by name.
func (s *solver) solve(ctx context.Context, w wish) ([]lock.Package, error) {
	there := map[string]bool{}
	for _, p := range w.present {
		there[p.Name] = true
	}
	args := []string{"install", "--yes", "--no-remove", "--print-uris", "--"}
	for _, name := range w.packages {
		if len(s.byName[name]) == 0 { // apt would try it as a pattern
			return nil, fmt.Errorf("there is no package %q in Debian; look for its name on https://packages.debian.org", name)
		}
		if !there[name] {
			args = append(args, name)
		}
	}
	status, err := s.status(w, there)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "status"), status, 0o644); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = s.runner.Run(ctx, run.Command{
		Name: "apt-get", Args: args, Stdout: &out,
		Env: []string{"APT_CONFIG=" + filepath.Join(s.dir, "apt.conf")},
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(out.String()))
	}
	return s.read(out.String())
}

// read finds the packages that apt-get --print-uris names: lines of 'URI' file size hash. Our URIs are of our hashes;
// that of the line is of apt's choice.
func (s *solver) read(out string) ([]lock.Package, error) {
	var packages []lock.Package
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		uri, _, _ := strings.Cut(line[1:], "'")
		e, ok := s.byHash[image.Digest("sha256:"+path.Base(uri))]
		if !ok {
			return nil, fmt.Errorf("cannot understand apt-get's line %q", strings.TrimSpace(line))
		}
		packages = append(packages, e.Package)
	}
	slices.SortFunc(packages, func(a, b lock.Package) int { return strings.Compare(a.Name, b.Name) })
	return packages, nil
}

// status is the list of installed packages that apt is to believe in: those that are present, and those that are not
// wanted. What they need was settled before, or is not wanted either.
func (s *solver) status(w wish, there map[string]bool) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range w.present {
		writeInstalled(&b, *s.byHash[p.SHA256], "Multi-Arch", "Provides", "Conflicts", "Breaks", "Replaces")
	}
	for _, name := range set(w.without) {
		if there[name] || slices.Contains(w.packages, name) {
			continue
		}
		entries := s.byName[name]
		if len(entries) == 0 {
			return nil, fmt.Errorf("there is no package %q in Debian to be left out", name)
		}
		writeInstalled(&b, *entries[len(entries)-1], "Multi-Arch", "Provides")
	}
	return b.Bytes(), nil
}

// writeInstalled writes a package as installed, with some of its relations.
func writeInstalled(w io.Writer, e apt.Entry, relations ...string) {
	e.Relations = slices.DeleteFunc(slices.Clone(e.Relations), func(f deb.Field) bool {
		return !slices.Contains(relations, f.Name)
	})
	writeStanza(w, e, "Status", "install ok installed")
}
