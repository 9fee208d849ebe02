package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"allotment/image"
)

// errName is what a name that does not fit nameForm gets.
var errName = errors.New("the name must be lower-case letters, digits and hyphens")

// newModule plans a module by itself; what it has to do with others, link adds.
func newModule(index int, m *image.Module) (*Module, error) {
	switch {
	case !nameForm.MatchString(m.Name):
		return nil, errName
	case m.Name == Gateway || m.Name == Portal:
		return nil, errors.New("this name is the box's own")
	case len(m.Layers) == 0:
		return nil, errors.New("it has no layer")
	case m.Memory.Max <= 0:
		return nil, errors.New("it has no memory limit")
	}
	mod := &Module{
		Name:       m.Name,
		Title:      m.Title,
		Importance: Importance(cmp.Or(m.Importance, string(Normal))),
		Layers:     m.Layers,
		IPv4:       nth(HostIPv4, index),
		IPv6:       nth(HostIPv6, index),
		FirstID:    firstID + uint32(index)*IDs,
		Cgroup:     "/allotment/" + m.Name,
		MemoryMax:  int64(m.Memory.Max) << 20,
		PIDsMax:    int64(cmp.Or(m.PIDs, defaultPIDs)),
		CPUWeight:  cmp.Or(m.CPU, defaultWeight),
		IOWeight:   cmp.Or(m.IO, defaultWeight),
		OOMScore:   cmp.Or(m.OOM, defaultOOM),
		HTTP:       m.HTTP,
		Declared:   m,
	}
	if !slices.Contains([]Importance{Core, Normal, Optional}, mod.Importance) {
		return nil, fmt.Errorf("no such importance as %q", m.Importance)
	}
	return mod, errors.Join(
		mod.addVolumes(m), mod.addServices(m), mod.addSecrets(m), mod.addTemplates(m), mod.addMigrations(m))
}

// nth is the address of the module at index: the host has number 1, the first module number 2.
func nth(host netip.Prefix, index int) netip.Prefix {
	b := host.Addr().AsSlice()
	b[len(b)-1] = byte(index + 2)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, host.Bits())
}

func (mod *Module) addVolumes(m *image.Module) error {
	for _, v := range m.Volumes {
		if !nameForm.MatchString(v.Name) || !cleanAbsolute(v.Path) {
			return fmt.Errorf("volume %q at %q: the name or the path is not allowed", v.Name, v.Path)
		}
		if slices.ContainsFunc(mod.Volumes, func(x Volume) bool { return x.Name == v.Name || x.Path == v.Path }) {
			return fmt.Errorf("volume %q at %q: another one shares its name or its path", v.Name, v.Path)
		}
		u, err := findUser(m.Users, v.User)
		if err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
		mod.Volumes = append(mod.Volumes, Volume{
			Name: v.Name, Path: v.Path, UID: uint32(u.UID), GID: uint32(u.GID),
			Quota: int64(cmp.Or(v.Quota, defaultQuota)) << 20, Format: v.Format, NoCOW: v.NoCOW,
		})
	}
	return nil
}

func (mod *Module) addServices(m *image.Module) error {
	for i := range m.Services {
		s, err := mod.newService(&m.Services[i])
		if err == nil && mod.Service(s.Name) != nil {
			err = errors.New("another one shares its name")
		}
		if err != nil {
			return fmt.Errorf("service %q: %w", m.Services[i].Name, err)
		}
		mod.Services = append(mod.Services, s)
	}
	if len(mod.Services) == 0 {
		return errors.New("it has no service")
	}
	return nil
}

func (mod *Module) newService(s *image.Service) (*Service, error) {
	if !nameForm.MatchString(s.Name) {
		return nil, errName
	}
	if strings.HasPrefix(s.Name, taskPrefix) || strings.HasPrefix(s.Name, migrationPrefix) {
		return nil, fmt.Errorf("names that begin with %s and %s are those of tasks", taskPrefix, migrationPrefix)
	}
	r, err := mod.newContainer(s.Name, &image.Task{Command: s.Command, User: s.User, Env: s.Env, Tmpfs: s.Tmpfs})
	if err != nil {
		return nil, err
	}
	r.Needs, r.Capabilities, r.Reload = s.Needs, s.Capabilities, s.Reload
	r.Stop = cmp.Or(s.Stop, r.Stop)
	r.StopTimeout = seconds(s.StopTimeout, defaultStopTimeout)
	if s.Memory > 0 {
		r.MemoryMax = min(r.MemoryMax, int64(s.Memory)<<20)
	}
	if s.Ready != nil {
		r.Ready = *s.Ready
	}
	r.Ready.Timeout = cmp.Or(r.Ready.Timeout, defaultReadyTimeout)
	if s.Live != nil {
		live := *s.Live
		live.Timeout = cmp.Or(live.Timeout, defaultLiveTimeout)
		live.Every = cmp.Or(live.Every, defaultLiveEvery)
		live.Failures = cmp.Or(live.Failures, defaultLiveFailures)
		r.Live = &live
	}
	return r, nil
}

// newContainer plans what services and tasks have in common.
func (mod *Module) newContainer(name string, t *image.Task) (*Service, error) {
	if len(t.Command) == 0 || !path.IsAbs(t.Command[0]) {
		return nil, errors.New("the command must begin with an absolute path")
	}
	user, err := findUser(mod.Declared.Users, t.User)
	if err != nil {
		return nil, err
	}
	for _, dir := range t.Tmpfs {
		if !cleanAbsolute(dir) {
			return nil, fmt.Errorf("tmpfs %q is not a clean absolute path", dir)
		}
	}
	return &Service{
		Module: mod, Name: name, ID: mod.Name + "." + name, Cgroup: mod.Cgroup + "/" + name,
		Command: t.Command, Env: t.Env, Tmpfs: t.Tmpfs, UID: uint32(user.UID), GID: uint32(user.GID),
		Stop: "SIGTERM", StopTimeout: seconds(0, defaultStopTimeout), MemoryMax: mod.MemoryMax,
	}, nil
}

func (mod *Module) addSecrets(m *image.Module) error {
	declared := m.Secrets
	if m.LDAP != nil { // first, so that another one of these names is the second
		declared = slices.Concat(ldapSecrets(m.LDAP), declared)
	}
	for _, s := range declared {
		u, err := findUser(m.Users, s.User)
		switch {
		case !nameForm.MatchString(s.Name):
			err = errName
		case slices.ContainsFunc(mod.Secrets, func(x Secret) bool { return x.Name == s.Name }):
			err = errors.New("another one shares its name")
		}
		if err != nil {
			return fmt.Errorf("secret %q: %w", s.Name, err)
		}
		mod.Secrets = append(mod.Secrets, Secret{Secret: s, UID: uint32(u.UID), GID: uint32(u.GID)})
	}
	return nil
}

// ldapSecrets are the passwords of a module's accounts in the directory.
func ldapSecrets(l *image.LDAP) []image.Secret {
	secrets := []image.Secret{{Name: "ldap", Kind: "password", User: "root"}}
	if l.Probe {
		secrets = append(secrets, image.Secret{Name: "probe", Kind: "password", User: "root"})
	}
	return secrets
}

func (mod *Module) addTemplates(m *image.Module) error {
	for _, t := range m.Templates {
		u, err := findUser(m.Users, t.User)
		r := Template{Template: t, UID: uint32(u.UID), GID: uint32(u.GID), For: mod.Services}
		switch {
		case !fileForm.MatchString(t.Name):
			err = errors.New("the name must be letters, digits, points, hyphens and underscores")
		case slices.ContainsFunc(mod.Templates, func(x Template) bool { return x.Name == t.Name }):
			err = errors.New("another one shares its name")
		case len(t.Services) > 0:
			r.For = nil
		}
		for _, name := range t.Services {
			s := mod.Service(name)
			if s == nil {
				err = fmt.Errorf("no service %q", name)
			}
			r.For = append(r.For, s)
		}
		if err != nil {
			return fmt.Errorf("template %q: %w", t.Name, err)
		}
		mod.Templates = append(mod.Templates, r)
	}
	return nil
}

// seconds is n seconds, or the default where n is 0.
func seconds(n, def int) time.Duration { return time.Duration(cmp.Or(n, def)) * time.Second }

func cleanAbsolute(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && p != "/" && !strings.ContainsAny(p, ":\n")
}

func findUser(users []image.User, name string) (image.User, error) {
	i := slices.IndexFunc(users, func(u image.User) bool { return u.Name == name })
	switch {
	case i < 0 && name == "root":
		return image.User{Name: name}, nil
	case i < 0:
		return image.User{}, fmt.Errorf("the module's tree has no user %q", name)
	case users[i].UID < 0 || users[i].UID >= IDs || users[i].GID < 0 || users[i].GID >= IDs:
		return image.User{}, fmt.Errorf("the ids of user %q are outside 0 to %d", name, IDs-1)
	}
	return users[i], nil
}
