package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"allotment/bench/peer"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/init/plan"
	"allotment/init/render"
	"allotment/init/secret"
	"allotment/init/settings"
)

// native is the Debian that runs the programs of modules as plain services: one folder of files on top of what the packages
// bring, made of the modules' own declarations and rendered by the device's own code.
type native struct {
	files string // the folder
	plan  *plan.Plan
	trees [][]*profile.Tree // of each module, but for the one below all, which stands for Debian
	tmp   []string          // lines for systemd-tmpfiles
	users []string          // lines for systemd-sysusers
}

// buildNative builds that Debian, unless the folder for it is there from an earlier run.
func (b *bench) buildNative(ctx context.Context, p *profile.Profile) (string, error) {
	dir := filepath.Join(b.dir, "peer")
	if disk := filepath.Join(dir, "peer.raw"); exists(disk) {
		return disk, nil
	}
	n, err := newNative(p, dir)
	if err != nil {
		return "", err
	}
	step := b.progress.Step("build debian", 0)
	disk, err := peer.Build(ctx, peer.Options{Tools: b.tools, Dir: dir, FileSystem: "btrfs", Packages: n.packages()})
	step.Done(err)
	return disk, err
}

// newNative makes the files below dir, with settings as of a box whose officers have said nothing yet.
func newNative(p *profile.Profile, dir string) (*native, error) {
	m, err := manifest(p)
	if err != nil {
		return nil, err
	}
	n := &native{files: filepath.Join(dir, "files")}
	if n.plan, err = plan.New(m); err != nil {
		return nil, err
	}
	for _, spec := range p.Modules {
		chain, err := p.Chain(&spec.Tree)
		if err != nil {
			return nil, err
		}
		n.trees = append(n.trees, chain[1:])
	}
	values, err := settings.Open(filepath.Join(dir, "settings"), m, slog.Default())
	if err != nil {
		return nil, err
	}
	secrets, err := secret.Open(filepath.Join(dir, "secrets"))
	if err != nil {
		return nil, err
	}
	return n, n.write(values.Values(), secrets)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// packages are those that the modules' own layers are made of.
func (n *native) packages() []string {
	var all []string
	for _, trees := range n.trees {
		for _, t := range trees {
			all = append(all, t.Packages...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// write makes all files.
func (n *native) write(values settings.Values, store *secret.Store) error {
	secrets := map[string]map[string]secret.Value{}
	for _, m := range n.plan.Modules {
		var err error
		if secrets[m.Name], err = store.Ensure(m, values.Organisation(), time.Now()); err != nil {
			return err
		}
	}
	hosts := "127.0.0.1 localhost"
	for i, m := range n.plan.Modules {
		if err := n.module(m, n.trees[i], values, secrets); err != nil {
			return fmt.Errorf("cannot make module %q native: %w", m.Name, err)
		}
		hosts += " " + m.Name + ".internal"
	}
	if err := n.file("/etc/hosts", hosts+"\n", ""); err != nil {
		return err
	}
	n.tmp = append(n.tmp, "L /run/config - - - - "+kept+"/config", "L /run/secrets - - - - "+kept+"/secrets",
		"r /etc/php/*/*/conf.d/*-*.ini") // Debian's list of extensions: the modules have their own
	if err := n.file("/etc/tmpfiles.d/peer.conf", strings.Join(n.tmp, "\n")+"\n", ""); err != nil {
		return err
	}
	if err := n.file("/etc/sysusers.d/peer.conf", strings.Join(n.users, "\n")+"\n", ""); err != nil {
		return err
	}
	for _, unit := range ownUnits {
		if err := n.link("/dev/null", units+unit); err != nil {
			return err
		}
	}
	return nil
}

const units = "/etc/systemd/system/"

// ownUnits are services that packages bring and start themselves, beside the modules'.
var ownUnits = []string{"apache2.service", "php8.4-fpm.service", "phpsessionclean.timer"}

// kept is where the peer has what a box renders into memory.
const kept = "/usr/share/peer"

// module writes the files of one module: what its layer has beside packages, what is rendered for it, and its services.
func (n *native) module(m *plan.Module, trees []*profile.Tree, values settings.Values,
	secrets map[string]map[string]secret.Value) error {
	for _, t := range trees {
		if err := n.tree(t); err != nil {
			return err
		}
	}
	data, err := render.NewData(n.plan, m, values.Organisation(), values.Module(m.Name), secrets)
	if err != nil {
		return err
	}
	files, err := render.Render(m, data)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := n.file(kept+"/config/"+name, string(text), ""); err != nil {
			return err
		}
	}
	for name, s := range secrets[m.Name] {
		if err := n.file(kept+"/secrets/"+name, s.Reveal(), ""); err != nil {
			return err
		}
	}
	for _, v := range m.Declared.Volumes {
		n.tmp = append(n.tmp, fmt.Sprintf("d %s 0700 %s %s", v.Path, v.User, v.User))
		if v.NoCOW {
			n.tmp = append(n.tmp, "h "+v.Path+" - - - - +C")
		}
	}
	var done []*plan.Migration
	for _, s := range m.Services {
		n.users = append(n.users, "u "+user(m.Declared.Services, s.Name))
		var before []*plan.Migration // those that no other service has seen to
		for _, migration := range s.After {
			if !slices.Contains(done, migration) {
				before = append(before, migration)
			}
		}
		done = append(done, before...)
		if err := n.service(m, s, before); err != nil {
			return err
		}
	}
	return nil
}

// tree writes the module's own files and links.
func (n *native) tree(t *profile.Tree) error {
	for _, f := range t.Files {
		text := f.Content
		if f.Source != "" {
			b, err := os.ReadFile(filepath.Join(t.Dir, f.Source))
			if err != nil {
				return err
			}
			text = string(b)
		}
		if f.Copy == "" { // that is in a package
			if err := n.file(f.Path, text, f.Mode); err != nil {
				return err
			}
		}
	}
	for _, l := range t.Links {
		if err := n.link(l.Target, l.Path); err != nil {
			return err
		}
	}
	return nil
}

// service writes a unit that starts the service as the supervisor does, migrations before it, and in no cage. It is tried
// again until what it needs is ready, of which systemd knows nothing.
func (n *native) service(m *plan.Module, s *plan.Service, migrations []*plan.Migration) error {
	user := user(m.Declared.Services, s.Name)
	lines := []string{"[Unit]", "StartLimitIntervalSec=0", "[Service]", "Restart=on-failure", "RestartSec=1", "TimeoutStartSec=600",
		"User=" + user, "AmbientCapabilities=CAP_NET_BIND_SERVICE"}
	for _, dir := range s.Tmpfs {
		if name, ok := strings.CutPrefix(dir, "/run/"); ok {
			lines = append(lines, "RuntimeDirectory="+name)
		} else if dir != "/tmp" {
			return fmt.Errorf("cannot tell systemd of the folder %q in memory", dir)
		}
	}
	for _, env := range s.Env {
		lines = append(lines, "Environment="+quoted([]string{env}))
	}
	for _, other := range s.Requires {
		if other.Module == m && len(other.Ready.Exec) > 0 {
			lines = append(lines, "ExecStartPre="+quoted(other.Ready.Exec))
		}
	}
	for _, migration := range migrations {
		lines = append(lines, "ExecStartPre="+quoted(migration.Command))
	}
	lines = append(lines, "ExecStart="+quoted(s.Command), "")
	if err := n.file(units+s.Name+".service", strings.Join(lines, "\n"), ""); err != nil {
		return err
	}
	return n.link("../"+s.Name+".service", units+"multi-user.target.wants/"+s.Name+".service")
}

// quoted is a command line as systemd.service(5) reads it.
func quoted(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, strings.NewReplacer("%", "%%", "$", "$$").Replace(strconv.Quote(w)))
	}
	return strings.Join(all, " ")
}

// file writes a file of the peer.
func (n *native) file(path, text, mode string) error {
	bits, err := strconv.ParseUint(cmp.Or(mode, "0644"), 8, 12)
	if err != nil {
		return err
	}
	path = filepath.Join(n.files, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), os.FileMode(bits))
}

func (n *native) link(target, path string) error {
	path = filepath.Join(n.files, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// user is the name of the user that a service runs as.
func user(services []image.Service, name string) string {
	for _, s := range services {
		if s.Name == name {
			return s.User
		}
	}
	return ""
}
